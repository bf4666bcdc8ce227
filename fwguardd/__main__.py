"""``python3 -m fwguardd`` runs the daemon. Exit code 1: a Python module that it needs is not installed."""

import sys

from fwguardd.dependencies import report_missing

try:
    from fwguardd.daemon import main
except ModuleNotFoundError as error:
    report_missing("fwguardd", error)
    sys.exit(1)

sys.exit(main())
