"""The command line of the verbs that replace the rules directory; `fwguardd.ctl.whole_directory` has what they do."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd.control.client import ControlNotPermittedError, DaemonUnreachableError, RequestRefusedError, ask
from fwguardd.ctl.control_socket import confirm_command, socket_path_of
from fwguardd.ctl.rules_swap import SwapError
from fwguardd.ctl.verb_options import add_confirm, add_force, add_rules, add_socket, describe
from fwguardd.escaping import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from fwguardd.ctl.whole_directory import Destination
    from fwguardd.settings import Settings

ANSWER_IS_NO, WRONG_USAGE, UNREACHABLE, NOT_PERMITTED, FAILED = 1, 2, 3, 4, 5

_DEPLOY = (
    "Check the rule files of a directory, let a copy of it take the place of the rules directory in one step, and "
    "apply it. The files from before are kept beside it. Exit code: 0 applied, or unchanged; 1 refused, with nothing "
    "changed; 3 the daemon cannot be reached; 4 not permitted; 5 failed."
)
_EDIT = (
    "Run $SUDO_EDITOR, $VISUAL, $EDITOR or editor on a copy of the rules directory, check it, show what would change, "
    "and ask what to do. What is applied is rolled back unless fwguardctl confirm is run in time."
)


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the help, the options and the operands of deploy or edit."""
    add_rules(parser)
    add_socket(parser)
    if verb == "deploy":
        _add_deploy(parser)
    else:
        _add_edit(parser)


def _add_deploy(parser: argparse.ArgumentParser) -> None:
    examples = (
        ("fwguardctl deploy ./rules --dry-run", "what would change"),
        ("fwguardctl deploy ./rules --confirm 2m", "roll back unless confirmed within 2 minutes"),
    )
    describe(parser, _DEPLOY, examples)
    parser.add_argument("directory", type=Path, metavar="DIR", help="the directory to copy")
    add_confirm(parser)
    add_force(parser)
    parser.add_argument("--dry-run", action="store_true", help="check the files and show what would change, no more")


def _add_edit(parser: argparse.ArgumentParser) -> None:
    examples = (
        ("fwguardctl edit", "all rule files"),
        ("fwguardctl edit 50-web.rules", "one rule file"),
    )
    describe(parser, _EDIT, examples)
    parser.add_argument("file", nargs="?", metavar="FILE", help="the name of one rule file (default: all)")
    add_confirm(parser, always=True)
    add_force(parser)


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


def target_of(options: argparse.Namespace) -> Destination:
    """The directory and the socket of the daemon. Raises SettingsError, SwapError."""
    from fwguardd.ctl.offline_verbs import chosen_settings, owned_in, source_of  # noqa: PLC0415
    from fwguardd.ctl.whole_directory import Destination  # noqa: PLC0415

    settings, socket_path = chosen_settings(options), socket_path_of(options)
    status = status_or_nothing(socket_path)
    rules_dir = _rules_dir(options, settings, status)
    source = source_of(settings, (rules_dir,), rules_dir, json=options.json)
    source = replace(source, owned=owned_in(status))
    confirm_seconds, force = getattr(options, "confirm_seconds", None), getattr(options, "force", False)
    return Destination(source, rules_dir, socket_path, confirm_seconds, confirm_command(socket_path), force)


def status_or_nothing(socket_path: Path) -> Mapping[str, Any]:
    """The status of the daemon; nothing where none can be asked."""
    try:
        return ask(socket_path, "status")
    except DaemonUnreachableError:
        return {}


def _rules_dir(options: argparse.Namespace, settings: Settings, status: Mapping[str, Any]) -> Path:
    """The rules directory that the daemon uses; that of the settings where none runs. Raises SwapError."""
    if not status:
        named: Path = options.rules_dir or settings.rules_dir
        return named
    used = Path(status["rules_dir"])
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
        return fail(error, FAILED)
    except RequestRefusedError as error:
        return fail(f"{error.message} [{error.code}]", FAILED)
    except ControlNotPermittedError as error:
        return fail(error, NOT_PERMITTED)
    except DaemonUnreachableError as error:
        return fail(error, UNREACHABLE)


def fail(reason: object, code: int) -> int:
    """Print why the verb failed; the exit code."""
    print(f"fwguardctl: {printable(str(reason))}", file=sys.stderr)
    return code
