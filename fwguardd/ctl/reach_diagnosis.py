"""What doctor says of listening sockets: whether sshd is reached, and which others only this host reaches.

Packets are sent through the rules in force in a temporary network namespace, as `fwguardd.ctl.exposure` does.
"""

from __future__ import annotations

from itertools import chain
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
    from collections.abc import Iterable, Iterator, Sequence

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
    known = list(sockets)
    yield from dict.fromkeys(chain.from_iterable(map(_reached, known)))  # IPv4 and IPv6 are one line.
    yield from _closed_note(list(chain.from_iterable(map(_closed, known))))


def _reached(socket: ExposedSocket) -> Iterator[str]:
    """That other hosts reach an sshd, if they do."""
    if socket.listening.program.name == SSHD and socket.reach.others and not socket.loopback_only:
        yield f"sshd at {socket.listening} is reached by other hosts"


def _closed(socket: ExposedSocket) -> Iterator[str]:
    """A socket of another program that the rules keep all other hosts from."""
    program = socket.listening.program.name or "unknown program"
    if socket.closed and program != SSHD:
        yield f"{socket.listening} ({program})"


def _closed_note(closed: Sequence[str]) -> Iterator[str]:
    named = ", ".join(closed[:MOST_NAMED])
    if len(closed) > MOST_NAMED:
        named += f" and {len(closed) - MOST_NAMED} more"
    if closed:
        yield f"{counted(len(closed), 'socket')} that only this host reaches by the rules in force: {named}"
