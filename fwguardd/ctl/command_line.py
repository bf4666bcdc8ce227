"""The command line of fwguardctl: which verbs and options there are, and which function runs each verb.

Exit codes: 0 done; 1 the answer is no; 2 wrong usage; 3 the daemon cannot be reached; 4 not permitted; 5 failed.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd import __version__
from fwguardd.ctl import daemon_verbs, directory_verbs, revision_diff
from fwguardd.ctl.check_verb import FORMATS, check
from fwguardd.ctl.denials import command as denials_command
from fwguardd.ctl.import_verb import import_files
from fwguardd.ctl.offline_verbs import OfflineInput, diff, render_rules
from fwguardd.ctl.terminal import show_what_the_terminal_can
from fwguardd.kernel.iptables import IptablesNotPermittedError, KernelError
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.ruleset.model import FAMILIES, Family
from fwguardd.settings import BACKEND_CHOICES, DEFAULT_PATH, Settings, SettingsError, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOT_PERMITTED, FAILED = 4, 5
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""
BROKEN_PIPE = 141
"""128 + SIGPIPE: what shells have for a program whose output nobody reads to its end."""

_FAMILIES = {None: FAMILIES, "4": (Family.IPV4,), "6": (Family.IPV6,)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code."""
    if argv is None:
        argv = sys.argv[1:]
    show_what_the_terminal_can()
    options = _parser().parse_args(denials_command.join_times(argv))
    try:
        return _run(options)
    except IptablesNotPermittedError as error:
        return _fail(str(error), NOT_PERMITTED)
    except (SettingsError, KernelError, NamespaceError) as error:
        return _fail(str(error), FAILED)
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED


def _discard_output() -> None:
    """Discard what is not written yet: its reader has closed it, and Python would report that again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(options: argparse.Namespace) -> int:
    run = _with_daemon(options)
    if run is not None:
        return run(options)
    if options.verb == "import":
        return import_files(options.files, options.output)
    if options.verb == denials_command.NAME:
        return denials_command.run(options)
    settings = _settings(options)
    if options.verb == "doctor":
        from fwguardd.ctl.doctor import doctor  # noqa: PLC0415 - only this verb needs these modules.

        return doctor(replace(settings, rules_dir=_rules_dir(options, settings)), as_document=options.json)
    return _run_offline(options, settings)


def _with_daemon(options: argparse.Namespace) -> Callable[[argparse.Namespace], int] | None:
    """The function that runs the verb with the help of the daemon; None for a verb that needs none."""
    if getattr(options, "revisions", None):
        return revision_diff.run
    if _writes_directory(options):
        return directory_verbs.run
    if options.verb in daemon_verbs.NAMES:
        return daemon_verbs.run
    return None


def _writes_directory(options: argparse.Namespace) -> bool:
    """Whether the verb writes files of the rules directory."""
    return options.verb in directory_verbs.NAMES or getattr(options, "restore_files", False)


def _settings(options: argparse.Namespace) -> Settings:
    """The settings, with the backend that the command line names."""
    settings = settings_of(options.config)
    if options.backend:
        return replace(settings, backend=BACKEND_CHOICES[options.backend])
    return settings


def _run_offline(options: argparse.Namespace, settings: Settings) -> int:
    paths = tuple(getattr(options, "paths", ())) or (_rules_dir(options, settings),)
    source = OfflineInput(paths, settings.rules_dir, settings.backend, options.json, settings.lint_context())
    if options.verb == "check":
        return check(source, _check_format(options), static=options.static)
    if options.verb == "diff":
        return diff(source)
    return render_rules(source, _FAMILIES[options.family])


def _check_format(options: argparse.Namespace) -> str:
    if options.json:
        return "json"
    name: str = options.format
    return name


def _rules_dir(options: argparse.Namespace, settings: Settings) -> Path:
    return options.rules_dir or settings.rules_dir


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fwguardctl", description="Check rule files, and query and control fwguardd, which guards the firewall."
    )
    parser.add_argument("--version", action="version", version=f"fwguardctl {__version__}")
    parser.add_argument(
        "--socket", type=Path, default=argparse.SUPPRESS, metavar="S", help="control socket of the daemon"
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON document")
    common.add_argument(
        "--config", type=Path, default=DEFAULT_PATH, metavar="F", help="settings file (default: %(default)s)"
    )
    common.add_argument("--rules-dir", type=Path, metavar="D", help="rules directory; the daemon uses its own")
    common.add_argument("--backend", choices=list(BACKEND_CHOICES), help="iptables backend to rehearse with")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_offline_verbs(verbs, common)
    _add_import(verbs)
    daemon_verbs.add_verbs(verbs, common)
    directory_verbs.add_verbs(verbs, common)
    denials_command.add_verb(verbs)
    return parser


def _add_offline_verbs(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    checking = verbs.add_parser(
        "check",
        parents=[common],
        help="check the rule files and load them in a temporary network namespace",
        description="Check the rule files and load them in a temporary network namespace. Nothing on the host changes. "
        "A PATH outside of the daemon's rules directory may belong to any user.",
    )
    checking.add_argument(
        "--static", action="store_true", help="do not rehearse: no iptables and no network namespace is needed"
    )
    checking.add_argument("--format", choices=FORMATS, default="text", help="output format (default: %(default)s)")
    checking.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="a directory, or rule files")
    comparing = verbs.add_parser(
        "diff",
        parents=[common],
        help="show what a reload would change in the kernel, or how two revisions differ",
        description="Show what a reload would change in the kernel, chain by chain. This needs root. With one "
        "revision, show how the one in force differs from it; with two, how the second differs from the first. In "
        'place of the second, "files" is what the rule files make.',
    )
    comparing.add_argument(
        "--socket", type=Path, default=argparse.SUPPRESS, metavar="S", help="control socket of the daemon"
    )
    comparing.add_argument(
        "revisions", nargs="*", type=revision_diff.operand, metavar="REV", help='a revision, or "files"'
    )
    rendering = verbs.add_parser(
        "render",
        parents=[common],
        help="print the composed ruleset for iptables-restore",
        description="Print the ruleset that the rule files make, as input for iptables-restore.",
    )
    rendering.add_argument("--family", choices=["4", "6"], help="only this family")
    verbs.add_parser(
        "doctor",
        parents=[common],
        help="report what on this host interferes with fwguardd",
        description="Report other firewalls, missing programs and settings of this host that interfere with fwguardd. "
        "Without root some checks are skipped.",
    )


def _add_import(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    importing = verbs.add_parser(
        "import",
        help="write rule files from those of iptables-persistent, ufw and iptables scripts",
        description="Write rule files from rules.v4 and rules.v6 of iptables-persistent, user.rules of ufw, and shell "
        "scripts that run iptables. No script is run. Lines that cannot be taken over are reported with the reason.",
    )
    importing.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="write the rule files there; without it, to standard output"
    )
    importing.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a saved ruleset or a script")


def _fail(reason: str, code: int) -> int:
    print(f"fwguardctl: {reason}", file=sys.stderr)
    return code
