"""The entry point of fwguardd-metrics.service. Exit code 78: a Python module that it needs is not installed."""

from __future__ import annotations

import sys

from fwguardd.dependencies import report_missing

_CONFIG = 78


def main() -> int:
    """Serve the metrics; the exit code."""
    try:
        from fwguardd.metrics import server  # noqa: PLC0415 - it imports modules that may not be installed.
    except ModuleNotFoundError as error:
        report_missing("fwguardd-metrics", error)
        return _CONFIG
    return server.main()


if __name__ == "__main__":
    sys.exit(main())
