"""The entry point of fwguardctl. Exit code 5: a Python module that it needs is not installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from fwguardd.ctl import command_line
from fwguardd.dependencies import report_missing
from fwguardd.process_end import end_with

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code."""
    try:
        return command_line.main(argv)
    except ModuleNotFoundError as error:  # The verbs import modules that may not be installed.
        report_missing("fwguardctl", error)
        return FAILED


def program() -> NoReturn:
    """Run the verb of the command line, and end the process."""
    end_with(main)


if __name__ == "__main__":
    program()
