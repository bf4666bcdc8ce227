"""fwguardctl: ask about the firewall, and look at rule files before they count.

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
from fwguardd.ctl import daemon_verbs
from fwguardd.ctl.denials import command as denials_command
from fwguardd.ctl.offline_verbs import OfflineInput, check, diff, render_rules
from fwguardd.kernel.iptables import IptablesNotPermittedError, KernelError
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.ruleset.model import FAMILIES, Family
from fwguardd.settings import BACKEND_CHOICES, DEFAULT_PATH, Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

WRONG_USAGE, NOT_PERMITTED, FAILED = 2, 4, 5


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code."""
    options = _parser().parse_args(denials_command.join_times(sys.argv[1:] if argv is None else argv))
    try:
        return _run(options)
    except SettingsError as error:
        return _fail(str(error), FAILED)
    except IptablesNotPermittedError as error:
        return _fail(str(error), NOT_PERMITTED)
    except (KernelError, NamespaceError) as error:
        return _fail(str(error), FAILED)
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python would complain again when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace) -> int:
    if options.verb in daemon_verbs.NAMES:
        return daemon_verbs.run(options)
    if options.verb == denials_command.NAME:
        return denials_command.run(options)
    settings = load_settings(options.config, must_exist=options.config != DEFAULT_PATH)
    backend = BACKEND_CHOICES[options.backend] if options.backend else settings.backend
    if options.verb == "doctor":
        from fwguardd.ctl.doctor import doctor  # noqa: PLC0415 - only this verb looks at the whole host.

        return doctor(
            replace(settings, rules_dir=_paths(options, settings)[0], backend=backend), as_document=options.json
        )
    look = OfflineInput(_paths(options, settings), backend, options.json, settings.lint_context())
    if options.verb == "check":
        return check(look)
    if options.verb == "diff":
        return diff(look)
    families = FAMILIES if options.family is None else (Family.IPV4 if options.family == "4" else Family.IPV6,)
    return render_rules(look, families)


def _paths(options: argparse.Namespace, settings: Settings) -> tuple[Path, ...]:
    named = tuple(getattr(options, "paths", ()))
    return named or (options.rules_dir or settings.rules_dir,)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fwguardctl", description="Ask about the firewall that fwguardd guards.")
    parser.add_argument("--version", action="version", version=f"fwguardctl {__version__}")
    parser.add_argument(
        "--socket", type=Path, default=argparse.SUPPRESS, metavar="S", help="control socket of the daemon"
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="print one JSON document")
    common.add_argument(
        "--config", type=Path, default=DEFAULT_PATH, metavar="F", help="settings file (default: %(default)s)"
    )
    common.add_argument("--rules-dir", type=Path, metavar="D", help="rules directory")
    common.add_argument("--backend", choices=list(BACKEND_CHOICES), help="half of the kernel to rehearse on")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    checking = verbs.add_parser(
        "check", parents=[common], help="say what is wrong with the rule files, and rehearse them"
    )
    checking.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="a directory, or rule files")
    verbs.add_parser("diff", parents=[common], help="show what a reload would change in the kernel")
    verbs.add_parser("doctor", parents=[common], help="say what on this host will bite")
    daemon_verbs.add_verbs(verbs, common)
    denials_command.add_verb(verbs)
    rendering = verbs.add_parser("render", parents=[common], help="print the composed ruleset")
    rendering.add_argument("--family", choices=["4", "6"], help="only this family")
    return parser


def _fail(reason: str, code: int) -> int:
    print(f"fwguardctl: {reason}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
