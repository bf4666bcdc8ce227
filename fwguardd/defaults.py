"""Paths and names that the command line needs without reading the settings, whose modules take long to import."""

from __future__ import annotations

from pathlib import Path

SETTINGS_PATH = Path("/etc/fwguardd.yaml")
RUNTIME_DIR = Path("/run/fwguard")
SOCKET_NAME = "control.sock"
"""The name of the control socket in the runtime directory."""

BACKEND_NAMES = ("auto", "nft", "legacy")
