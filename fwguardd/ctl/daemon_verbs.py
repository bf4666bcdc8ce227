"""The verbs that need the daemon: each sends one request to the control socket, prints the answer, and returns a code.

Nothing is decided here. Whether a reload is refused, a revision exists or a user is permitted, the daemon says; this
module turns its answer into text and an exit code, and says what to do when there is no answer.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from fwguardd.control.client import ControlNotPermittedError, DaemonUnreachableError, RequestRefusedError, ask
from fwguardd.ctl import answers, daemon_verb_table
from fwguardd.ctl.control_socket import socket_path_of
from fwguardd.ctl.daemon_verb_table import (
    DAEMON_VERBS,
    FAILED,
    NOT_PERMITTED,
    UNREACHABLE,
    WRONG_USAGE,
    arguments_of,
)
from fwguardd.ctl.reload_request import ask_for_reload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from pathlib import Path

    from fwguardd.control.protocol import Value

add_arguments = daemon_verb_table.add_arguments
"""Part of `fwguardd.ctl.verb_table.VerbModule`."""


def run(options: argparse.Namespace) -> int:
    """Send the request, print the answer, and return the exit code. Raises SettingsError for a wrong --config."""
    if getattr(options, "restore_files", False):
        return _restore_files(options)
    socket_path, sent = socket_path_of(options), _sent_verb(options)
    try:
        _show_impact(options, socket_path)
        result = _ask(socket_path, sent, arguments_of(options, sent))
    except (DaemonUnreachableError, ControlNotPermittedError, RequestRefusedError) as error:
        return _no_result(options, error)
    verb = DAEMON_VERBS[options.verb]
    if options.json:
        print(json.dumps(result))
        return verb.code(result)
    try:
        lines = verb.lines(result, answers.AnswerPainter(), socket_path)
    except (KeyError, TypeError) as error:
        # While an upgrade is under way, the daemon may be of another version than this program.
        return _fail(f"the answer of fwguardd does not have the expected form ({error!r}); --json prints it", FAILED)
    print("\n".join(lines))
    return verb.code(result)


def _show_impact(options: argparse.Namespace, socket_path: Path) -> None:
    """Before a reload that has to be confirmed, print what it does to connections, sockets and denied packets."""
    if options.verb != "reload" or options.confirm_seconds is None or options.json:
        return
    # Imported here, because it needs the modules that rehearse.
    from fwguardd.ctl.change_impact import print_impact_of_reload  # noqa: PLC0415
    from fwguardd.kernel.privilege import CAP_NET_ADMIN, has_capability  # noqa: PLC0415
    from fwguardd.settings import settings_of  # noqa: PLC0415

    if has_capability(CAP_NET_ADMIN):
        print_impact_of_reload(ask(socket_path, "status"), settings_of(options.config))


def _ask(socket_path: Path, verb: str, arguments: Mapping[str, Value]) -> Mapping[str, Any]:
    """The result of a verb. Raises what `fwguardd.control.client.ask` raises."""
    if verb == "reload":
        return ask_for_reload(socket_path, arguments)
    return ask(socket_path, verb, arguments)


def _restore_files(options: argparse.Namespace) -> int:
    # Imported here, because it needs the modules that rehearse.
    from fwguardd.ctl import directory_verbs  # noqa: PLC0415

    return directory_verbs.run(options)


def _sent_verb(options: argparse.Namespace) -> str:
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
    if options.seconds is not None:
        reason = "fwguardd is not running, so nothing would close the firewall at that time"
        return _fail(f"{reason}; start it, or open without --for", UNREACHABLE)
    # Imported here, because only this verb needs the modules of the daemon.
    from fwguardd.ctl.open_without_daemon import open_without_daemon  # noqa: PLC0415
    from fwguardd.kernel.privilege import MissingPrivilegeError, RunningAlreadyError  # noqa: PLC0415
    from fwguardd.settings import settings_of  # noqa: PLC0415
    from fwguardd.store.model import StoreError  # noqa: PLC0415

    settings = settings_of(options.config)
    try:
        return open_without_daemon(settings, as_json=options.json)
    except MissingPrivilegeError:
        return _fail("fwguardd is not running, and only root can open the firewall: run it as root", NOT_PERMITTED)
    except (RunningAlreadyError, StoreError) as error:
        return _fail(error, FAILED)


def _fail(reason: object, code: int) -> int:
    print(f"fwguardctl: {answers.escaped(reason)}", file=sys.stderr)
    return code
