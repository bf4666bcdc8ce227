"""``python3 -m fwguardd`` is the daemon."""

import sys

from fwguardd.daemon import main

sys.exit(main())
