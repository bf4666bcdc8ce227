"""The verbs that ask the daemon: they send one request to its control socket, print the answer, and end with a code.

Nothing is decided here. Whether a reload is refused, a revision exists or a user may do something, the daemon says;
this room turns its answer into text and an exit code, and says what to do when there is no answer.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd.control.client import ControlNotPermittedError, DaemonUnreachableError, RequestRefusedError, ask
from fwguardd.ctl import answers
from fwguardd.kernel.privilege import MissingPrivilegeError, RunningAlreadyError
from fwguardd.settings import DEFAULT_PATH, Settings, SettingsError, duration, load_settings
from fwguardd.store.revisions import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


DONE, ANSWER_IS_NO, UNREACHABLE, NOT_PERMITTED, FAILED = 0, 1, 3, 4, 5
SOCKET_NAME = "control.sock"
"""The name of the control socket in the runtime directory."""

CONFIRM_WITHIN = 60.0
"""Seconds that `reload --confirm` leaves when it is not told how many."""

_SHORTEST, _LONGEST = 1.0, 86400.0
_CHANGES = frozenset({"reload", "rollback", "open", "confirm"})
_OUTCOMES = {"applied": DONE, "unchanged": DONE, "refused": ANSWER_IS_NO, "failed": FAILED}

_HELP: Mapping[str, str] = {
    "status": "what is in force, since when, and what is wrong",
    "reload": "read the rule files now, and wait for the verdict",
    "confirm": "keep what reload --confirm has put in force",
    "rollback": "put an earlier revision in force",
    "history": "the revisions that are kept",
    "show": "one revision: its files, and what the kernel made of them",
    "open": "accept everything now, until the next reload",
    "drift": "compare the kernel with what is in force, now",
    "pause": "hold repairs for a while, for work by hand",
    "resume": "repair drift again, after a pause or a fight",
}
NAMES = frozenset(_HELP)
"""The verbs that `run` runs."""


def add_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """Add the daemon's verbs to a parser whose subparsers have the destination ``verb``. ``common`` has --json and
    --config."""
    asking = argparse.ArgumentParser(add_help=False)
    # No default here, so that a --socket before the verb counts as well.
    asking.add_argument(
        "--socket", type=Path, default=argparse.SUPPRESS, metavar="S", help="control socket of the daemon"
    )
    parsers = {name: verbs.add_parser(name, parents=[common, asking], help=text) for name, text in _HELP.items()}
    parsers["reload"].add_argument(
        "--confirm", type=_duration, nargs="?", const=CONFIRM_WITHIN, metavar="60s", dest="confirm_seconds",
        help="undo it after this time unless fwguardctl confirm says otherwise",
    )  # fmt: skip
    parsers["rollback"].add_argument(
        "revision", type=_positive, nargs="?", metavar="REV", help="the one to go back to (default: the one before)"
    )
    parsers["history"].add_argument("--limit", type=_positive, metavar="N", help="only the newest N")
    parsers["show"].add_argument("revision", type=_positive, metavar="REV", help="see fwguardctl history")
    parsers["pause"].add_argument("seconds", type=_duration, metavar="TIME", help="for how long, such as 15m")


def run(options: argparse.Namespace) -> int:
    """Ask what was parsed, print the answer, and give the exit code. Raises SettingsError for a wrong --config."""
    socket_path = _socket_path(options)
    try:
        result = ask(socket_path, options.verb, _arguments(options))
    except (DaemonUnreachableError, ControlNotPermittedError, RequestRefusedError) as error:
        return _not_answered(options, error)
    if options.json:
        print(json.dumps(result))
        return _exit_code(options.verb, result)
    try:
        lines = _lines(options, result, socket_path)
    except (KeyError, TypeError) as error:
        # The two are of different versions, for as long as an upgrade takes.
        return _fail(f"the answer of fwguardd is not as expected ({error!r}); --json prints it as it is", FAILED)
    print("\n".join(lines))
    return _exit_code(options.verb, result)


def _not_answered(
    options: argparse.Namespace, error: DaemonUnreachableError | ControlNotPermittedError | RequestRefusedError
) -> int:
    if isinstance(error, RequestRefusedError):
        return _fail(f"{error.message} [{error.code}]", FAILED)
    if isinstance(error, ControlNotPermittedError):
        return _fail(error, NOT_PERMITTED)
    if options.verb == "open" and not hasattr(options, "socket"):
        return _open_alone(options)
    return _fail(error, UNREACHABLE)


def _open_alone(options: argparse.Namespace) -> int:
    # Only this verb needs the machinery of the daemon.
    from fwguardd.ctl.open_without_daemon import open_without_daemon  # noqa: PLC0415

    settings = load_settings(options.config, must_exist=options.config != DEFAULT_PATH)
    try:
        return open_without_daemon(settings, as_json=options.json)
    except MissingPrivilegeError as error:
        return _fail(error, NOT_PERMITTED)
    except (RunningAlreadyError, StoreError) as error:
        return _fail(error, FAILED)


def _arguments(options: argparse.Namespace) -> dict[str, int | float | None]:
    names = ("confirm_seconds", "revision", "limit", "seconds")
    return {name: getattr(options, name) for name in names if hasattr(options, name)}


def _lines(options: argparse.Namespace, result: Mapping[str, Any], socket_path: Path) -> list[str]:
    ink = answers.AnswerPainter()
    if options.verb == "status":
        return answers.status(result, ink, time.time())
    if options.verb in _CHANGES:
        return answers.change(result, ink, _confirm_command(socket_path))
    tellers: Mapping[str, Callable[[Mapping[str, Any], answers.AnswerPainter], list[str]]] = {
        "history": answers.history,
        "show": answers.show,
        "drift": answers.drift,
        "pause": answers.pause,
        "resume": answers.pause,
    }
    return tellers[options.verb](result, ink)


def _exit_code(verb: str, result: Mapping[str, Any]) -> int:
    if verb == "drift":
        return ANSWER_IS_NO if result.get("count") else DONE
    return _OUTCOMES.get(result.get("outcome", ""), FAILED) if verb in _CHANGES else DONE


def _socket_path(options: argparse.Namespace) -> Path:
    given: Path | None = getattr(options, "socket", None)
    if given is not None:
        return given
    try:
        settings = load_settings(options.config, must_exist=options.config != DEFAULT_PATH)
    except SettingsError as error:
        if options.config != DEFAULT_PATH:
            raise
        # The daemon goes on with the settings from before, and must stay within reach, for "open" above all.
        settings = Settings()
        print(f"fwguardctl: {error}; trying the control socket in {settings.runtime_dir}", file=sys.stderr)
    return settings.runtime_dir / SOCKET_NAME


def _confirm_command(socket_path: Path) -> str:
    usual = socket_path == Settings().runtime_dir / SOCKET_NAME
    return "fwguardctl confirm" if usual else f"fwguardctl confirm --socket {shlex.quote(str(socket_path))}"


def _duration(text: str) -> float:
    try:
        seconds = duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not _SHORTEST <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range: from 1s to 24h")
    return seconds


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < len(text) <= 15 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def _fail(reason: object, code: int) -> int:
    print(f"fwguardctl: {answers.told(reason)}", file=sys.stderr)
    return code
