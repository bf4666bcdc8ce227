"""What doctor says of listening sockets: whether sshd is reached, and which others only this host reaches.

Packets are sent through the rules in force in a temporary network namespace, as `fwguardd.ctl.exposure` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd.ctl.beds import beds_of
from fwguardd.ctl.control_socket import socket_path_of
from fwguardd.ctl.exposure import examine
from fwguardd.ctl.offline_verbs import input_of
from fwguardd.ctl.ruleset_sources import rules_in_force
from fwguardd.errors import ReportedError
from fwguardd.ruleset.model import Finding, Severity
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from fwguardd.packets.exposure import ExposedSocket

SSHD: Final = "sshd"
"""The name of the process that listens for ssh (sshd(8))."""

MOST_NAMED: Final = 5
"""Sockets that a note names; fwguardctl exposure lists all."""


@dataclass(frozen=True, slots=True)
class ReachDiagnosis:
    """Problems, facts that need no action, and what could not be checked."""

    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


def diagnose_reach(options: argparse.Namespace) -> ReachDiagnosis:
    """Find out who reaches the listening sockets. Nothing is raised."""
    try:
        rules = rules_in_force(input_of(options), socket_path_of(options))
        with beds_of(options) as beds:
            sockets = examine(rules, beds, all_ports=False).sockets
    except ReportedError as error:
        return ReachDiagnosis(unchecked=(f"from where listening sockets are reached: {error}",))
    return ReachDiagnosis(tuple(check_ssh(sockets)), tuple(notes_about(sockets)))


def check_ssh(sockets: Iterable[ExposedSocket]) -> Iterator[Finding]:
    """An sshd that listens for other hosts, and that none of them reaches."""
    for socket in sockets:
        if socket.listening.program.name == SSHD and socket.closed:
            message = f"sshd listens at {socket.listening}, and the rules in force let only this host reach it"
            hint = f"to open it: fwguardctl allow {socket.listening.port}/tcp; fwguardctl exposure shows all sockets"
            yield Finding("ssh-closed", message, socket.origin, Severity.WARNING, hint=hint)


def notes_about(sockets: Iterable[ExposedSocket]) -> Iterator[str]:
    """Where sshd is reached, and which other sockets the rules keep all others from."""
    closed: list[str] = []
    for socket in sockets:
        program = socket.listening.program.name
        if socket.closed and program != SSHD:
            closed.append(f"{socket.listening} ({program or 'unknown program'})")
        elif program == SSHD and socket.reach.others and not socket.loopback_only:
            yield f"sshd at {socket.listening} is reached by other hosts"
    if closed:
        named = ", ".join(closed[:MOST_NAMED])
        if len(closed) > MOST_NAMED:
            named += f" and {len(closed) - MOST_NAMED} more"
        yield f"{counted(len(closed), 'socket')} that only this host reaches by the rules in force: {named}"
