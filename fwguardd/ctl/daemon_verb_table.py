"""The verbs that the daemon performs, as fwguardctl knows them: help, arguments, the answer as text, the exit code.

What is sent are the arguments of the verb in `fwguardd.control.protocol`, from the options of the same names.
"""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from fwguardd.control.protocol import VERBS
from fwguardd.ctl import answers, status_answer
from fwguardd.ctl.control_socket import confirm_command
from fwguardd.ctl.others_answer import others
from fwguardd.ctl.verb_options import (
    add_config,
    add_confirm,
    add_json,
    add_rules,
    add_socket,
    describe,
    positive_argument,
    seconds_argument,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from fwguardd.control.protocol import Value

DONE, ANSWER_IS_NO, WRONG_USAGE, UNREACHABLE, NOT_PERMITTED, FAILED = 0, 1, 2, 3, 4, 5
_OUTCOMES = {"applied": DONE, "unchanged": DONE, "refused": ANSWER_IS_NO, "failed": FAILED}


def _add_nothing(_parser: argparse.ArgumentParser) -> None:
    """For a verb that has only the options that all verbs of the daemon have."""


def _code_of_answer(_result: Mapping[str, Any]) -> int:
    """For a verb that is done when it is answered."""
    return DONE


class DaemonVerb(NamedTuple):
    """A verb: its help with examples (command line, meaning); ``lines`` turns a result into text; ``add`` adds its own
    arguments; ``code`` is the exit code for a result."""

    description: str
    examples: tuple[tuple[str, str], ...]
    lines: Callable[[Any, answers.AnswerPainter, Path], list[str]]
    add: Callable[[argparse.ArgumentParser], None] = _add_nothing
    code: Callable[[Mapping[str, Any]], int] = _code_of_answer


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the help, the options and the operands of a verb."""
    ours = DAEMON_VERBS[verb]
    describe(parser, ours.description, ours.examples)
    if verb == "rollback":
        add_rules(parser)  # With --restore-files it writes into the rules directory.
    else:
        add_json(parser)
        add_config(parser)
    add_socket(parser)
    ours.add(parser)


def arguments_of(options: argparse.Namespace, verb: str) -> dict[str, Value]:
    """The arguments of a request, by the options that have their names.

    What is not given is left out: a daemon of an earlier version refuses an argument that it does not know.
    """
    given: dict[str, Value] = {}
    for argument in VERBS[verb].arguments:
        value = getattr(options, argument.name, None)
        if isinstance(value, list):
            value = tuple(value)
        if value not in (None, ()):
            given[argument.name] = value
    return given


def _add_reload(parser: argparse.ArgumentParser) -> None:
    add_confirm(parser)
    parser.add_argument(
        "--take-over", action="store_const", const=True, dest="take_over",
        help="with the first load remove what other programs have in the tables of the rule files",
    )  # fmt: skip
    parser.add_argument(
        "--force", action="store_const", const=True,
        help="apply the files although the peer of a live ssh session is denied by them",
    )  # fmt: skip


def _add_rollback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "revision", type=positive_argument, nargs="?", metavar="REV",
        help="the revision to go back to (default: the previous one)",
    )  # fmt: skip
    parser.add_argument(
        "--restore-files", action="store_true",
        help="write the rule files of the revision into the rules directory",
    )  # fmt: skip


def _add_history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=positive_argument, metavar="N", help="list only the newest N")


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("revision", type=positive_argument, metavar="REV", help="a number from fwguardctl history")


def _add_open(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--for", type=seconds_argument, metavar="15m", dest="seconds",
        help="load what is in force now again after this",
    )  # fmt: skip


def _add_pause(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("seconds", type=seconds_argument, metavar="TIME", help="for how long, such as 15m")


def _add_adopt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("numbers", type=positive_argument, nargs="*", metavar="N", help="a number from the list")
    parser.add_argument("--all", action="store_true", help="all rules that are to be decided about")
    parser.add_argument("--remove", action="store_const", const=True, help="remove the rules instead of keeping them")


def _status_lines(result: Any, ink: answers.AnswerPainter, _socket_path: Path) -> list[str]:
    return status_answer.status(result, ink, time.time())


def _change_lines(result: Any, ink: answers.AnswerPainter, socket_path: Path) -> list[str]:
    return answers.change(result, ink, confirm_command(socket_path))


def _confirm_lines(result: Any, ink: answers.AnswerPainter, socket_path: Path) -> list[str]:
    return answers.confirmed(result, ink, confirm_command(socket_path))


def _adopt_lines(result: Any, ink: answers.AnswerPainter, socket_path: Path) -> list[str]:
    if _is_list(result):
        return others(result, ink)
    return _change_lines(result, ink, socket_path)


def _is_list(result: Mapping[str, Any]) -> bool:
    """Whether it is the answer to `others`, which is what adopt without a number sends."""
    return "outcome" not in result


def _plain(
    lines: Callable[[Any, answers.AnswerPainter], list[str]],
) -> Callable[[Any, answers.AnswerPainter, Path], list[str]]:
    """The lines of a verb that do not depend on the socket."""
    return lambda result, ink, _socket_path: lines(result, ink)


def _code_of_change(result: Mapping[str, Any]) -> int:
    return _OUTCOMES.get(result.get("outcome", ""), FAILED)


def _code_of_adopt(result: Mapping[str, Any]) -> int:
    if _is_list(result):
        return DONE
    return _code_of_change(result)


def _code_of_drift(result: Mapping[str, Any]) -> int:
    if result.get("count") or result.get("undecided"):
        return ANSWER_IS_NO
    return DONE


def _code_of_status(result: Mapping[str, Any]) -> int:
    """Whether the kernel holds the revision in force. A daemon of an earlier version names no state."""
    if result.get("state", "in-force") == "in-force":
        return DONE
    return ANSWER_IS_NO


DAEMON_VERBS: Mapping[str, DaemonVerb] = MappingProxyType({
    "status": DaemonVerb(
        ("Compare the kernel with the revision in force, and show the result, the state of the rule files, and what is "
        "wrong. Exit code: 0 the state is in-force; 1 it is another one; 3 the daemon cannot be reached."),
        (
            ("fwguardctl status", "state, revision, drift and denials"),
            ("fwguardctl status --json", "the same for programs"),
        ),
        lines=_status_lines, code=_code_of_status,
    ),
    "reload": DaemonVerb(
        ("Apply the settings and the rule files now, and wait for the result. If the files are refused, the firewall "
        "stays as it is, and the errors are printed with file and line."),
        (
            ("fwguardctl reload", "apply what was changed"),
            ("fwguardctl reload --confirm 2m", "roll back unless confirmed within 2 minutes"),
        ),
        lines=_change_lines, add=_add_reload, code=_code_of_change,
    ),
    "confirm": DaemonVerb(
        ("Keep the revision that reload --confirm has put in force. Run it over a new connection: that you can still "
        "log in is what it confirms."),
        (
            ("fwguardctl confirm", "keep the change"),
            ("fwguardctl confirm --json", "the same for programs"),
        ),
        lines=_confirm_lines, code=_code_of_change,
    ),
    "rollback": DaemonVerb(
        ("Put an earlier revision in force: by default the one before, and after another rollback the one before that. "
        "The rule files are held until a reload asks for them. A revision in which everything was open must be named."),
        (
            ("fwguardctl rollback", "go back by one revision"),
            ("fwguardctl rollback 41 --restore-files", "revision 41, and its rule files"),
        ),
        lines=_change_lines, add=_add_rollback, code=_code_of_change,
    ),
    "history": DaemonVerb(
        "List the revisions that are kept, newest first: when each was put in force, why, and which files changed.",
        (
            ("fwguardctl history", "all revisions"),
            ("fwguardctl history --limit 5", "the newest five"),
        ),
        lines=_plain(answers.history), add=_add_history,
    ),
    "show": DaemonVerb(
        "Show one revision: its rule files, and its rules as iptables-save prints them.",
        (
            ("fwguardctl show 41", "revision 41"),
            ("fwguardctl show 41 --json", "the same for programs"),
        ),
        lines=_plain(answers.show), add=_add_show,
    ),
    "open": DaemonVerb(
        ("Accept everything now. Rules of other programs stay. The rule files are held until a reload asks for them, "
        "and fwguardctl reload closes the firewall again. Works without the daemon, too."),
        (
            ("fwguardctl open --for 15m", "close by itself after 15 minutes"),
            ("fwguardctl open", "stay open until fwguardctl reload"),
        ),
        lines=_change_lines, add=_add_open, code=_code_of_change,
    ),
    "hold": DaemonVerb(
        "Do not apply changed rule files until the next reload. Drift is still repaired.",
        (
            ("fwguardctl hold", "before editing several files"),
            ("fwguardctl reload", "apply them, and end the hold"),
        ),
        lines=_change_lines, code=_code_of_change,
    ),
    "drift": DaemonVerb(
        ("Compare the kernel with the revision in force now, and list the differences. Nothing is repaired by it. Exit "
        "code 1: there are differences."),
        (
            ("fwguardctl drift", "what differs"),
            ("fwguardctl drift --json", "the same for programs"),
        ),
        lines=_plain(answers.drift), code=_code_of_drift,
    ),
    "pause": DaemonVerb(
        "Do not repair drift for a while, to work on the firewall by hand. Drift is still reported.",
        (
            ("fwguardctl pause 15m", "for 15 minutes"),
            ("fwguardctl resume", "repair again at once"),
        ),
        lines=_plain(answers.pause), add=_add_pause,
    ),
    "resume": DaemonVerb(
        "Repair drift again, after a pause or after a fight with another program.",
        (
            ("fwguardctl resume", "repair what differs now"),
            ("fwguardctl resume --json", "the same for programs"),
        ),
        lines=_plain(answers.pause),
    ),
    "adopt": DaemonVerb(
        ("List the rules that other programs have in the tables of the rule files and that are to be decided about; "
        "with numbers from the list, keep them, or remove them."),
        (
            ("fwguardctl adopt", "list them"),
            ("fwguardctl adopt 1 3", "keep rules 1 and 3"),
            ("fwguardctl adopt --all --remove", "remove all of them"),
        ),
        lines=_adopt_lines, add=_add_adopt, code=_code_of_adopt,
    ),
})  # fmt: skip
"""Each verb of fwguardctl that is one request to the daemon."""
