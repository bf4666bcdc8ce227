"""``fwguardd`` and ``python3 -m fwguardd`` run the daemon. Exit code 1: a Python module that it needs is missing."""

import gc
from typing import NoReturn

from fwguardd.dependencies import report_missing
from fwguardd.process_end import end_with

# What the imports make stays: searching it for garbage again and again takes a tenth of the start. It is searched again
# from `fwguardd.interpreter.set_up_process` on.
gc.disable()


def main() -> NoReturn:
    """Run the daemon, and end the process."""
    end_with(_run)


def _run() -> int:
    try:
        from fwguardd import daemon  # noqa: PLC0415 - what is missing is found here, or later by the settings.

        return daemon.main()
    except ModuleNotFoundError as error:
        report_missing("fwguardd", error)
        return 1


if __name__ == "__main__":
    main()
