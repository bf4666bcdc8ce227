"""The lockout guard: the packets that have to pass, so that a change does not lock out the administrators of a host.

The peer of each live ssh session, and each peer of the settings, must be able to open a connection to the ports of
sshd and to go on with it, and the answers must be able to leave. A packet that the rules in the kernel deny already is
not lost by the change, and does not count.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeGuard

from fwguardd.packets.host_routes import LOOPBACK, host_routes
from fwguardd.packets.model import ConnectionState, Journey, Packet, Verdict
from fwguardd.packets.packet_words import CLIENT_PORT
from fwguardd.packets.policy_results import deciding_of
from fwguardd.packets.policy_tests import family_of
from fwguardd.ruleset.model import Finding, Severity
from fwguardd.ruleset.ssh_sessions import SshSession
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fwguardd.packets.case_values import Address
    from fwguardd.packets.host import Host
    from fwguardd.packets.host_routes import HostRoutes
    from fwguardd.packets.model import Undecided
    from fwguardd.ruleset.model import Family, Ruleset

    Rulesets = Mapping[Family, Ruleset]
    Outcomes = Sequence[Journey | Undecided]

CLOSES_SSH = "closes-ssh"
"""The code of the findings. Where no packets can be sent, `fwguardd.ruleset.ssh_sessions` warns under the same code."""

MOST_GUARDED = 200
"""Connections that the guard tries: with three packets each, more would take too long."""

_ACK = frozenset({"ACK"})


@dataclass(frozen=True, slots=True)
class Guarded:
    """A packet that has to pass, the connection that it belongs to, who has that, and what is lost if it is denied."""

    session: SshSession
    packet: Packet
    who: str
    loses: str


@dataclass(frozen=True, slots=True)
class Denied:
    """A guarded packet that is denied."""

    guarded: Guarded
    journey: Journey


def guarded_packets(
    sessions: Iterable[SshSession], host: Host, listed: Iterable[SshSession] = (), asking: SshSession | None = None
) -> list[Guarded]:
    """The packets that must pass: of the session ``asking``, of the live ones, and of those that the settings list.

    Sessions within this host are left out.
    """
    who: dict[SshSession, str] = {}
    if asking is not None:
        who[asking] = f"{asking.peer}, from which this change is asked for, has an ssh session"
    who |= {session: f"{session.peer} has an ssh session" for session in sessions if session not in who}
    who |= {session: f"{session.peer} is listed in lockout_peers" for session in listed if session not in who}
    routes = host_routes(host)
    found: list[Guarded] = []
    for session in list(filter(_comes_from_outside, who))[:MOST_GUARDED]:
        found += _packets_of(session, routes, who[session])
    return found


def _comes_from_outside(session: SshSession) -> bool:
    return session.peer != session.local and not session.peer.is_loopback


def listed_sessions(peers: Iterable[Address], ports: Iterable[int], host: Host) -> tuple[SshSession, ...]:
    """The connections that the peers of the settings must be able to open: from each to each of these ports."""
    routes, numbers = host_routes(host), sorted(ports)
    found: list[SshSession] = []
    for peer in peers:
        local = routes.address_on(routes.interface_to(peer), peer.version)
        if local is not None:
            found += [SshSession(peer, local, port) for port in numbers]
    return tuple(found)


def _packets_of(session: SshSession, routes: HostRoutes, who: str) -> Iterator[Guarded]:
    interface = routes.interface_to(session.peer) or _interface_with(session, routes)
    if interface in ("", LOOPBACK):
        return
    new = Packet(
        family_of(session.peer), "tcp", session.peer, session.local, CLIENT_PORT, session.port, in_interface=interface
    )
    yield Guarded(session, new, who, "could not open a new connection")
    goes_on = replace(new, state=ConnectionState.ESTABLISHED, flags=_ACK)
    yield Guarded(session, goes_on, who, "could not go on with a connection")
    answer = replace(
        goes_on,
        source=session.local,
        destination=session.peer,
        source_port=session.port,
        destination_port=CLIENT_PORT,
        in_interface=None,
        out_interface=interface,
    )
    yield Guarded(session, answer, who, "would get no answers of a connection")


def _interface_with(session: SshSession, routes: HostRoutes) -> str:
    """The interface that has the local address of a session; "" where none has."""
    names = [own.interface for own in routes.addresses if own.address.ip == session.local]
    return next(iter(names), "")


def denied_packets(guarded: Sequence[Guarded], outcomes: Outcomes) -> list[Denied]:
    """The packets that were certainly denied, of each session the first one."""
    found: dict[SshSession, Denied] = {}
    for each, outcome in zip(guarded, outcomes, strict=True):
        if _is_denied(outcome):
            found.setdefault(each.session, Denied(each, outcome))
    return list(found.values())


def lost_by_change(denied: Sequence[Denied], before: Outcomes) -> list[Denied]:
    """Those of the denied packets that were accepted before, or may have been."""
    pairs = zip(denied, before, strict=True)
    return [each for each, outcome in pairs if not _is_denied(outcome)]


def _is_denied(outcome: Journey | Undecided) -> TypeGuard[Journey]:
    return isinstance(outcome, Journey) and outcome.verdict is not Verdict.ACCEPT


def lockout_finding(denied: Denied, rulesets: Rulesets, override: str, *, forced: bool) -> Finding:
    """The finding about a packet that has to pass and does not; ``forced`` makes it a warning. ``override`` is the
    command that applies the change all the same."""
    session, severity = denied.guarded.session, Severity.ERROR
    hint = f"accept it before this change; to apply the change all the same: {override}"
    if forced:
        severity, hint = Severity.WARNING, "the change is applied all the same, as asked for by --force"
    deciding = deciding_of(denied.journey, rulesets)
    message = f"{denied.guarded.who}, and {denied.guarded.loses} to port {session.port}: {deciding.words}"
    return Finding(CLOSES_SSH, message, deciding.origin, severity, hint, family=session.family)
