"""The command line of fwguardctl: it finds the verb, and hands over to the module that has it.

Exit codes: 0 done; 1 the answer is no; 2 wrong usage; 3 the daemon cannot be reached; 4 not permitted; 5 failed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from fwguardd import __version__
from fwguardd.ctl.output import show_what_the_terminal_can
from fwguardd.ctl.pager import paged, terminal_columns
from fwguardd.ctl.verb_table import VERBS, list_of_verbs
from fwguardd.errors import NotPermittedError, ReportedError

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

NOT_PERMITTED, FAILED = 4, 5
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""
BROKEN_PIPE = 141
"""128 + SIGPIPE: what shells have for a program whose output nobody reads to its end."""

_UNKNOWN_VERB: Final = re.compile(r"argument VERB: invalid choice: (?P<verb>'[^']*')")
_AGO: Final = re.compile(r"-[0-9]")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; its exit code."""
    if argv is None:
        argv = sys.argv[1:]
    show_what_the_terminal_can()
    options = _parser(argv).parse_args(join_times(argv))
    try:
        return _run(options)
    except NotPermittedError as error:
        return _fail(str(error), NOT_PERMITTED)
    except ReportedError as error:
        return _fail(str(error), FAILED)
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """A parser that names the one verb that is wrong, not all that there are."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and a message. Exits with 2."""
        unknown = _UNKNOWN_VERB.match(message)
        if unknown is not None:
            verb = unknown["verb"]
            message = f"{verb} is not a verb{_similar(verb)}; fwguardctl --help lists the verbs"
        super().error(message)


def _similar(word: str) -> str:
    """The verb that was probably meant, as a question; "" where there is none."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake pays for this import.

    similar = get_close_matches(word.strip("'"), [verb.name for verb in VERBS], 1)
    if not similar:
        return ""
    return f" (did you mean {similar[0]}?)"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Text as wide as the terminal. That of argparse asks shutil."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=terminal_columns() - 2)


class _VerbParser(argparse.ArgumentParser):
    """The parser of one verb, which shows the usage of this verb where a word is wrong."""

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """Like that of argparse, without words that are not known. Exits with 2."""
        namespace, unknown = super().parse_known_args(*args, **options)
        if unknown:
            advice = ""
            if f"--{unknown[0]}" in self.format_help().split():
                advice = f"; did you mean --{unknown[0]}?"
            self.error(f"unrecognized arguments: {' '.join(unknown)}{advice}")
        return namespace, unknown


def full_parser() -> argparse.ArgumentParser:
    """The parser with the arguments of every verb, for those who compare it with the manual and the completions."""
    return _parser([verb.name for verb in VERBS])


def _run(options: argparse.Namespace) -> int:
    (verb,) = (verb for verb in VERBS if verb.name == options.verb)
    with paged(wanted=verb.is_long and options.pager and not _is_for_programs(options)):
        return verb.load().run(options)


def _is_for_programs(options: argparse.Namespace) -> bool:
    """Whether the output is no text for a person, or goes on for ever."""
    return any(getattr(options, name, False) for name in ("json", "follow"))


def _parser(named: Container[str]) -> argparse.ArgumentParser:
    """The parser; it has only the verbs that the command line names, rightly or as the value of an option."""
    parser = _Parser(
        prog="fwguardctl",
        usage="fwguardctl [--socket S] [--no-pager] VERB [options]",
        description="Check rule files, and query and control fwguardd, which guards the firewall.\n\n"
        + list_of_verbs(),
        epilog="fwguardctl VERB --help shows the options of a verb, and examples.\n"
        "Manual: fwguardctl(8), fwguard-cookbook(7)",
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"fwguardctl {__version__}")
    parser.add_argument(
        "--socket", type=Path, default=argparse.SUPPRESS, metavar="S", help="control socket of the daemon"
    )
    parser.add_argument("--no-pager", action="store_false", dest="pager", help="do not send long output to a pager")
    verbs = parser.add_subparsers(
        prog="fwguardctl", dest="verb", required=True, metavar="VERB", help=argparse.SUPPRESS, parser_class=_VerbParser
    )
    for verb in VERBS:
        if verb.name in named:
            verb.load().add_arguments(verbs.add_parser(verb.name, formatter_class=_Formatter), verb.name)
    return parser


def join_times(argv: Sequence[str]) -> list[str]:
    """The command line with ``--since -15m`` as ``--since=-15m``: argparse takes the former for an option."""
    joined: list[str] = []
    previous = ""
    for word in argv:
        if previous in {"--since", "--until"} and _AGO.match(word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
        previous = word
    return joined


def _discard_output() -> None:
    """Discard what is not written yet: its reader has closed it, and Python would report that again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(reason: str, code: int) -> int:
    print(f"fwguardctl: {reason}", file=sys.stderr)
    return code
