"""``fwguardd`` and ``python3 -m fwguardd`` run the daemon. Exit code 1: a Python module that it needs is missing."""

import gc
import sys

from fwguardd.dependencies import report_missing

# What the imports make stays: searching it for garbage again and again takes a tenth of the start. It is searched again
# from `fwguardd.interpreter.set_up_process` on.
gc.disable()


def main() -> int:
    """Run the daemon; its exit code."""
    try:
        from fwguardd import daemon  # noqa: PLC0415 - what is missing is found here, or later by the settings.

        return daemon.main()
    except ModuleNotFoundError as error:
        report_missing("fwguardd", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
