"""The third-party Python packages that fwguardd imports, and the message where one of them is not installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec

DEBIAN_PACKAGES = {
    "sdnotify": "python3-sdnotify",
    "structlog": "python3-structlog",
    "watchdog": "python3-watchdog",
    "yaml": "python3-yaml",
}
"""The Debian package of each imported module."""

OPTIONAL = {"prometheus_client": "python3-prometheus-client"}
"""The same, of modules that only some verbs need."""


def report_missing(program: str, error: ModuleNotFoundError) -> None:
    """Print which Debian packages to install. Raises ``error`` again if it names none of our dependencies."""
    wanted = DEBIAN_PACKAGES
    if error.name in OPTIONAL:
        wanted = {**DEBIAN_PACKAGES, **OPTIONAL}
    if error.name not in wanted:
        raise error
    missing = sorted(name for name in wanted if find_spec(name) is None)
    packages = " ".join(wanted[name] for name in missing)
    message = f"{program}: Python modules are not installed: {', '.join(missing)}"
    print(f"{message}; install them with: apt install {packages}", file=sys.stderr)
