"""The verbs that need the daemon: each sends one request to the control socket, prints the answer, and returns a code.

Nothing is decided here. Whether a reload is refused, a revision exists or a user is permitted, the daemon says; this
module turns its answer into text and an exit code, and says what to do when there is no answer.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd.control.client import ControlNotPermittedError, DaemonUnreachableError, RequestRefusedError, ask
from fwguardd.ctl import answers, status_answer
from fwguardd.ctl.others_answer import others
from fwguardd.kernel.privilege import MissingPrivilegeError, RunningAlreadyError
from fwguardd.settings import DEFAULT_PATH, Settings, SettingsError, duration, settings_of
from fwguardd.store.revisions import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fwguardd.control.protocol import Value

    _Lines = Callable[[Any, answers.AnswerPainter, Path], list[str]]

DONE, ANSWER_IS_NO, WRONG_USAGE, UNREACHABLE, NOT_PERMITTED, FAILED = 0, 1, 2, 3, 4, 5
SOCKET_NAME = "control.sock"
"""The name of the control socket in the runtime directory."""

CONFIRM_WITHIN = 60.0
"""Seconds that `reload --confirm` leaves when no number is given."""

_SHORTEST, _LONGEST = 1.0, 86400.0
_POSITIVE = re.compile(r"0*[1-9][0-9]{0,14}")
_CHANGES = frozenset({"reload", "rollback", "open", "confirm", "hold", "adopt"})
_OUTCOMES = {"applied": DONE, "unchanged": DONE, "refused": ANSWER_IS_NO, "failed": FAILED}

_HELP: Mapping[str, str] = {
    "status": "show what is in force, since when, and what is wrong",
    "reload": "apply the rule files now, and wait for the result",
    "confirm": "keep the revision that reload --confirm has put in force",
    "rollback": "put an earlier revision in force",
    "history": "list the revisions that are kept",
    "show": "show one revision: its files, and its rules as iptables-save prints them",
    "open": "accept everything now, for a time or until the next reload",
    "hold": "do not apply changed rule files until the next reload",
    "drift": "compare the kernel with the revision in force now",
    "pause": "do not repair drift for a while, to work on the firewall by hand",
    "resume": "repair drift again, after a pause or a fight",
    "adopt": "list rules of other programs in owned tables, and keep or remove them",
}
NAMES = frozenset(_HELP)
"""The verbs that `run` runs."""


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add the daemon's verbs to a parser whose subparsers have the destination ``verb``. ``common`` has --json and
    --config."""
    with_socket = argparse.ArgumentParser(add_help=False)
    # Without a default, so that a --socket before the verb is not overwritten.
    with_socket.add_argument(
        "--socket", type=Path, default=argparse.SUPPRESS, metavar="S", help="control socket of the daemon"
    )
    parsers = {name: verbs.add_parser(name, parents=[common, with_socket], help=text) for name, text in _HELP.items()}
    parsers["reload"].add_argument(
        "--confirm", type=seconds_argument, nargs="?", const=CONFIRM_WITHIN, metavar="60s", dest="confirm_seconds",
        help="roll the change back after this time, unless fwguardctl confirm is run before",
    )  # fmt: skip
    parsers["rollback"].add_argument(
        "revision",
        type=_positive,
        nargs="?",
        metavar="REV",
        help="the revision to go back to (default: the previous one)",
    )
    parsers["rollback"].add_argument(
        "--restore-files",
        action="store_true",
        help="write the rule files of the revision into the rules directory",
    )
    parsers["history"].add_argument("--limit", type=_positive, metavar="N", help="list only the newest N")
    parsers["show"].add_argument("revision", type=_positive, metavar="REV", help="a number from fwguardctl history")
    parsers["open"].add_argument(
        "--for",
        type=seconds_argument,
        metavar="15m",
        dest="seconds",
        help="load what is in force now again after this",
    )
    parsers["reload"].add_argument(
        "--take-over", action="store_const", const=True, dest="take_over",
        help="with the first load remove what other programs have in the tables of the rule files",
    )  # fmt: skip
    adopt = parsers["adopt"]
    adopt.add_argument("numbers", type=_positive, nargs="*", metavar="N", help="a number from the list")
    adopt.add_argument("--all", action="store_true", help="all rules that are to be decided about")
    adopt.add_argument("--remove", action="store_const", const=True, help="remove the rules instead of keeping them")
    parsers["pause"].add_argument("seconds", type=seconds_argument, metavar="TIME", help="for how long, such as 15m")


def run(options: argparse.Namespace) -> int:
    """Send the request, print the answer, and return the exit code. Raises SettingsError for a wrong --config."""
    socket_path = socket_path_of(options)
    try:
        result = ask(socket_path, _verb(options), _arguments(options))
    except (DaemonUnreachableError, ControlNotPermittedError, RequestRefusedError) as error:
        return _no_result(options, error)
    if options.json:
        print(json.dumps(result))
        return _exit_code(_verb(options), result)
    try:
        lines = _LINES[_verb(options)](result, answers.AnswerPainter(), socket_path)
    except (KeyError, TypeError) as error:
        # While an upgrade is under way, the daemon may be of another version than this program.
        return _fail(f"the answer of fwguardd does not have the expected form ({error!r}); --json prints it", FAILED)
    print("\n".join(lines))
    return _exit_code(_verb(options), result)


def _verb(options: argparse.Namespace) -> str:
    """The verb of the protocol: adopt without a number lists what there is to adopt."""
    if options.verb != "adopt" or options.numbers or options.all:
        return str(options.verb)
    if options.remove:
        raise SystemExit(_fail("adopt --remove needs the numbers of rules, or --all", WRONG_USAGE))
    return "others"


def _no_result(
    options: argparse.Namespace, error: DaemonUnreachableError | ControlNotPermittedError | RequestRefusedError
) -> int:
    match error:
        case RequestRefusedError():
            return _fail(f"{error.message} [{error.code}]", FAILED)
        case ControlNotPermittedError():
            return _fail(error, NOT_PERMITTED)
        case DaemonUnreachableError():
            if options.verb == "open" and not hasattr(options, "socket"):
                return _open_without_daemon(options)
            return _fail(error, UNREACHABLE)


def _open_without_daemon(options: argparse.Namespace) -> int:
    # Imported here, because only this verb needs the modules of the daemon.
    from fwguardd.ctl.open_without_daemon import open_without_daemon  # noqa: PLC0415

    if options.seconds is not None:
        reason = "fwguardd is not running, so nothing would close the firewall at that time"
        return _fail(f"{reason}; start it, or open without --for", UNREACHABLE)
    settings = settings_of(options.config)
    try:
        return open_without_daemon(settings, as_json=options.json)
    except MissingPrivilegeError:
        return _fail("fwguardd is not running, and only root can open the firewall: run it as root", NOT_PERMITTED)
    except (RunningAlreadyError, StoreError) as error:
        return _fail(error, FAILED)


def _arguments(options: argparse.Namespace) -> dict[str, Value]:
    names = ("confirm_seconds", "revision", "limit", "seconds", "take_over", "remove")
    given = {name: getattr(options, name, None) for name in names}
    # What is not given is left out: a daemon of an earlier version refuses an argument that it does not know.
    arguments: dict[str, Value] = {name: value for name, value in given.items() if value is not None}
    if getattr(options, "numbers", ()):
        arguments["numbers"] = tuple(options.numbers)
    return arguments


def _status_lines(result: Any, ink: answers.AnswerPainter, _socket_path: Path) -> list[str]:
    return status_answer.status(result, ink, time.time())


def _change_lines(result: Any, ink: answers.AnswerPainter, socket_path: Path) -> list[str]:
    return answers.change(result, ink, confirm_command(socket_path))


def _confirm_lines(result: Any, ink: answers.AnswerPainter, socket_path: Path) -> list[str]:
    return answers.confirmed(result, ink, confirm_command(socket_path))


def _plain(lines: Callable[[Any, answers.AnswerPainter], list[str]]) -> _Lines:
    """The lines of a verb that do not depend on the socket."""
    return lambda result, ink, _socket_path: lines(result, ink)


_LINES: Mapping[str, _Lines] = {
    "status": _status_lines,
    "reload": _change_lines,
    "confirm": _confirm_lines,
    "rollback": _change_lines,
    "history": _plain(answers.history),
    "show": _plain(answers.show),
    "open": _change_lines,
    "hold": _change_lines,
    "drift": _plain(answers.drift),
    "pause": _plain(answers.pause),
    "resume": _plain(answers.pause),
    "others": _plain(others),
    "adopt": _change_lines,
}
"""The function that turns the result of each verb into lines."""


def _exit_code(verb: str, result: Mapping[str, Any]) -> int:
    if verb == "drift":
        return ANSWER_IS_NO if result.get("count") else DONE
    if verb == "status":
        return _status_code(result)
    if verb in _CHANGES:
        return _OUTCOMES.get(result.get("outcome", ""), FAILED)
    return DONE


def _status_code(result: Mapping[str, Any]) -> int:
    """Whether the kernel holds the revision in force. A daemon of an earlier version names no state."""
    if result.get("state", "in-force") == "in-force":
        return DONE
    return ANSWER_IS_NO


def socket_path_of(options: argparse.Namespace) -> Path:
    """The control socket that the command line or the settings name. Raises SettingsError for a wrong --config."""
    given: Path | None = getattr(options, "socket", None)
    if given is not None:
        return given
    try:
        settings = settings_of(options.config)
    except SettingsError as error:
        if options.config != DEFAULT_PATH:
            raise
        # A daemon that runs still uses the earlier settings, and has to stay reachable, above all for "open".
        settings = Settings()
        print(f"fwguardctl: {error}; trying the control socket in {settings.runtime_dir}", file=sys.stderr)
    return settings.runtime_dir / SOCKET_NAME


def confirm_command(socket_path: Path) -> str:
    """The command that confirms a change."""
    if socket_path == Settings().runtime_dir / SOCKET_NAME:
        return "fwguardctl confirm"
    return f"fwguardctl confirm --socket {shlex.quote(str(socket_path))}"


def seconds_argument(text: str) -> float:
    """The seconds of a duration on the command line. Raises ArgumentTypeError."""
    try:
        seconds = duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not _SHORTEST <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range: from 1s to 24h")
    return seconds


def _positive(text: str) -> int:
    if _POSITIVE.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a positive number")
    return int(text)


def _fail(reason: object, code: int) -> int:
    print(f"fwguardctl: {answers.escaped(reason)}", file=sys.stderr)
    return code
