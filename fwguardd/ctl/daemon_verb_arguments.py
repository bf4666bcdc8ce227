"""The help and the arguments of the verbs that the daemon performs."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

_Examples = tuple[tuple[str, str], ...]

_HELP: Mapping[str, tuple[str, _Examples]] = {
    "status": (
        ("Compare the kernel with the revision in force, and show the result, the state of the rule files, and what is "
        "wrong. Exit code: 0 the state is in-force; 1 it is another one; 3 the daemon cannot be reached."),
        (
            ("fwguardctl status", "state, revision, drift and denials"),
            ("fwguardctl status --json", "the same for programs"),
        ),
    ),
    "reload": (
        ("Apply the settings and the rule files now, and wait for the result. If the files are refused, the firewall "
        "stays as it is, and the errors are printed with file and line."),
        (
            ("fwguardctl reload", "apply what was changed"),
            ("fwguardctl reload --confirm 2m", "roll back unless confirmed within 2 minutes"),
        ),
    ),
    "confirm": (
        ("Keep the revision that reload --confirm has put in force. Run it over a new connection: that you can still "
        "log in is what it confirms."),
        (
            ("fwguardctl confirm", "keep the change"),
            ("fwguardctl confirm --json", "the same for programs"),
        ),
    ),
    "rollback": (
        ("Put an earlier revision in force: by default the one before, and after another rollback the one before that. "
        "The rule files are held until a reload asks for them. A revision in which everything was open must be named."),
        (
            ("fwguardctl rollback", "go back by one revision"),
            ("fwguardctl rollback 41 --restore-files", "revision 41, and its rule files"),
        ),
    ),
    "history": (
        "List the revisions that are kept, newest first: when each was put in force, why, and which files changed.",
        (
            ("fwguardctl history", "all revisions"),
            ("fwguardctl history --limit 5", "the newest five"),
        ),
    ),
    "show": (
        "Show one revision: its rule files, and its rules as iptables-save prints them.",
        (
            ("fwguardctl show 41", "revision 41"),
            ("fwguardctl show 41 --json", "the same for programs"),
        ),
    ),
    "open": (
        ("Accept everything now. Rules of other programs stay. The rule files are held until a reload asks for them, "
        "and fwguardctl reload closes the firewall again. Works without the daemon, too."),
        (
            ("fwguardctl open --for 15m", "close by itself after 15 minutes"),
            ("fwguardctl open", "stay open until fwguardctl reload"),
        ),
    ),
    "hold": (
        "Do not apply changed rule files until the next reload. Drift is still repaired.",
        (
            ("fwguardctl hold", "before editing several files"),
            ("fwguardctl reload", "apply them, and end the hold"),
        ),
    ),
    "drift": (
        ("Compare the kernel with the revision in force now, and list the differences. Nothing is repaired by it. Exit "
        "code 1: there are differences."),
        (
            ("fwguardctl drift", "what differs"),
            ("fwguardctl drift --json", "the same for programs"),
        ),
    ),
    "pause": (
        "Do not repair drift for a while, to work on the firewall by hand. Drift is still reported.",
        (
            ("fwguardctl pause 15m", "for 15 minutes"),
            ("fwguardctl resume", "repair again at once"),
        ),
    ),
    "resume": (
        "Repair drift again, after a pause or after a fight with another program.",
        (
            ("fwguardctl resume", "repair what differs now"),
            ("fwguardctl resume --json", "the same for programs"),
        ),
    ),
    "adopt": (
        ("List the rules that other programs have in the tables of the rule files and that are to be decided about; "
        "with numbers from the list, keep them, or remove them."),
        (
            ("fwguardctl adopt", "list them"),
            ("fwguardctl adopt 1 3", "keep rules 1 and 3"),
            ("fwguardctl adopt --all --remove", "remove all of them"),
        ),
    ),
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Add the help, the options and the operands of a verb."""
    description, examples = _HELP[verb]
    describe(parser, description, examples)
    if verb == "rollback":
        add_rules(parser)  # With --restore-files it writes into the rules directory.
    else:
        add_json(parser)
        add_config(parser)
    add_socket(parser)
    if verb in _OWN:
        _OWN[verb](parser)


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


_OWN: Mapping[str, Callable[[argparse.ArgumentParser], None]] = {
    "reload": _add_reload,
    "rollback": _add_rollback,
    "history": _add_history,
    "show": _add_show,
    "open": _add_open,
    "pause": _add_pause,
    "adopt": _add_adopt,
}
"""What each verb has beside the options that all verbs of the daemon have."""
