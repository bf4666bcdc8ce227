"""The command line of the verbs that replace the rules directory; `fwguardd.ctl.whole_directory` has what they do."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd.control.client import ControlNotPermittedError, DaemonUnreachableError, RequestRefusedError, ask
from fwguardd.ctl.daemon_verbs import CONFIRM_WITHIN, confirm_command, seconds_argument, socket_path_of
from fwguardd.ctl.rules_swap import SwapError
from fwguardd.escaping import printable
from fwguardd.settings import BACKEND_CHOICES, Settings, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwguardd.ctl.whole_directory import Target

NAMES = frozenset({"deploy", "edit"})
"""The verbs that `run` runs."""

UNREACHABLE, NOT_PERMITTED, FAILED = 3, 4, 5


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add deploy and edit to the parser."""
    with_socket = argparse.ArgumentParser(add_help=False)
    with_socket.add_argument(
        "--socket", type=Path, default=argparse.SUPPRESS, metavar="S", help="control socket of the daemon"
    )
    deploying = verbs.add_parser(
        "deploy",
        parents=[common, with_socket],
        help="replace the rules directory by a copy of another one, and apply it",
        description="Check the rule files of a directory, let a copy of it take the place of the rules directory in "
        "one step, and apply it. The files from before are kept beside it. Exit code: 0 applied, or unchanged; "
        "1 refused, with nothing changed; 3 the daemon cannot be reached; 4 not permitted; 5 failed.",
    )
    deploying.add_argument("directory", type=Path, metavar="DIR", help="the directory to copy")
    deploying.add_argument(
        "--confirm", type=seconds_argument, nargs="?", const=CONFIRM_WITHIN, metavar="60s", dest="confirm_seconds",
        help="roll the change back after this time, unless fwguardctl confirm is run before",
    )  # fmt: skip
    deploying.add_argument("--dry-run", action="store_true", help="check the files and show what would change, no more")
    editing = verbs.add_parser(
        "edit",
        parents=[common, with_socket],
        help="edit a copy of the rule files, check it, and apply it with a confirmation",
        description="Run $SUDO_EDITOR, $VISUAL, $EDITOR or editor on a copy of the rules directory, check it, show "
        "what would change, and ask what to do. What is applied is rolled back unless fwguardctl confirm is run in "
        "time.",
    )
    editing.add_argument("file", nargs="?", metavar="FILE", help="the name of one rule file (default: all)")
    editing.add_argument(
        "--confirm", type=seconds_argument, default=CONFIRM_WITHIN, metavar="60s", dest="confirm_seconds",
        help="roll the change back after this time, unless fwguardctl confirm is run before (default: 60s)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run deploy, edit, or rollback --restore-files. Raises SettingsError, KernelError and NamespaceError."""
    # Imported here, because only these verbs need these modules.
    from fwguardd.ctl.edit import edit  # noqa: PLC0415
    from fwguardd.ctl.whole_directory import deploy, restore  # noqa: PLC0415

    def work() -> int:
        target = target_of(options)
        if options.verb == "edit":
            return edit(options.file, target)
        if options.verb == "rollback":
            return restore(options.revision, target)
        return deploy(options.directory, target, dry_run=options.dry_run)

    return guarded(work)


def target_of(options: argparse.Namespace) -> Target:
    """The directory and the socket of the daemon. Raises SettingsError, SwapError."""
    from fwguardd.ctl.offline_verbs import OfflineInput  # noqa: PLC0415
    from fwguardd.ctl.whole_directory import Target  # noqa: PLC0415

    settings, socket_path = settings_of(options.config), socket_path_of(options)
    backend = BACKEND_CHOICES[options.backend or "auto"] or settings.backend
    rules_dir = _rules_dir(options, settings, socket_path)
    source = OfflineInput((rules_dir,), rules_dir, backend, options.json, settings.lint_context())
    confirm_seconds = getattr(options, "confirm_seconds", None)
    return Target(source, rules_dir, socket_path, confirm_seconds, confirm_command(socket_path))


def _rules_dir(options: argparse.Namespace, settings: Settings, socket_path: Path) -> Path:
    """The rules directory that the daemon uses; that of the settings where none runs. Raises SwapError."""
    named: Path = options.rules_dir or settings.rules_dir
    try:
        used = Path(ask(socket_path, "status")["rules_dir"])
    except DaemonUnreachableError:
        return named
    if _names_another(options.rules_dir, used):
        raise SwapError(f"fwguardd applies the rules in {used}, not those in {options.rules_dir}")
    return used


def _names_another(given: Path | None, used: Path) -> bool:
    """Whether the command line names a directory other than the one in use."""
    return given is not None and given.resolve() != used.resolve()


def guarded(work: Callable[[], int]) -> int:
    """Do work with the daemon; its exit code, or that of the error, which is printed."""
    try:
        return work()
    except SwapError as error:
        return _fail(error, FAILED)
    except RequestRefusedError as error:
        return _fail(f"{error.message} [{error.code}]", FAILED)
    except ControlNotPermittedError as error:
        return _fail(error, NOT_PERMITTED)
    except DaemonUnreachableError as error:
        return _fail(error, UNREACHABLE)


def _fail(reason: object, code: int) -> int:
    print(f"fwguardctl: {printable(str(reason))}", file=sys.stderr)
    return code
