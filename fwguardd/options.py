"""The command line of the daemon. Options take precedence over settings, also after a reload of the settings."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd import __version__
from fwguardd.settings import BACKEND_CHOICES, DEFAULT_PATH, LOG_CHOICES, Settings, settings_of
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Options:
    """The options given: the settings file, and the settings that take precedence over it.

    With ``hold_files`` the rule files are held, and no daemon is started.
    """

    config: Path
    given: Mapping[str, Any]
    hold_files: bool = False

    def load(self) -> Settings:
        """The settings of the file, with the options in their place. Raises SettingsError."""
        settings = settings_of(self.config)
        return replace(settings, **self.given)


def parse_options(argv: Sequence[str]) -> Options:
    """The options of a command line. Wrong usage ends the process with code 2, as argparse has it."""
    options = _parser().parse_args(argv)
    given: dict[str, Any] = {}
    for name in ("rules_dir", "state_dir", "runtime_dir"):
        if getattr(options, name):
            given[name] = getattr(options, name).absolute()
    if options.backend:
        given["backend"] = BACKEND_CHOICES[options.backend]
    if options.log:
        given["log"] = LOG_CHOICES[options.log]
    return Options(options.config, given, options.hold_files)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fwguardd", description="Keep the iptables firewall equal to the files in /etc/fwguard.d."
    )
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_PATH, metavar="F", help="settings file (default: %(default)s)"
    )
    parser.add_argument("--rules-dir", type=Path, metavar="D", help="rules directory")
    parser.add_argument("--state-dir", type=Path, metavar="D", help="directory of the revisions")
    parser.add_argument("--runtime-dir", type=Path, metavar="D", help="directory of the lock and the control socket")
    parser.add_argument("--backend", choices=list(BACKEND_CHOICES), help="iptables backend to write to")
    parser.add_argument("--log", choices=list(LOG_CHOICES), help="where events are written, and in which form")
    parser.add_argument(
        "--hold-files",
        action="store_true",
        help="do not start: hold the rule files, so that the next start applies them only when a reload asks for it",
    )
    parser.add_argument("--version", action="version", version=f"fwguardd {__version__}")
    return parser
