"""Where the control socket is: the command line names it, or the settings, or it is at its default place."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from fwguardd.defaults import RUNTIME_DIR, SETTINGS_PATH, SOCKET_NAME

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

_DEFAULT = RUNTIME_DIR / SOCKET_NAME


def socket_path_of(options: argparse.Namespace) -> Path:
    """The control socket that the command line or the settings name. Raises SettingsError for a wrong --config."""
    given: Path | None = getattr(options, "socket", None)
    if given is not None:
        return given
    if options.config == SETTINGS_PATH and not _may_name_another(SETTINGS_PATH):
        return _DEFAULT
    # Imported here, because this takes as long as all the rest of a verb.
    from fwguardd.settings import SettingsError, settings_of  # noqa: PLC0415

    try:
        return settings_of(options.config).runtime_dir / SOCKET_NAME
    except SettingsError as error:
        if options.config != SETTINGS_PATH:
            raise
        # A daemon that runs still uses the earlier settings, and has to stay reachable, above all for "open".
        print(f"fwguardctl: {error}; trying the control socket in {RUNTIME_DIR}", file=sys.stderr)
        return _DEFAULT


def _may_name_another(path: Path) -> bool:
    """Whether a settings file can have the setting runtime_dir. YAML spells a key in other letters only by escapes."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return b"runtime_dir" in text or b"\\" in text


def confirm_command(socket_path: Path) -> str:
    """The command that confirms a change."""
    if socket_path == _DEFAULT:
        return "fwguardctl confirm"
    return f"fwguardctl confirm --socket {shlex.quote(str(socket_path))}"
