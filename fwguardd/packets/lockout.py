"""The lockout guard: the packets that have to pass, so that nobody who administers this host is locked out.

The peer of each live ssh session, and each peer of the settings, must be able to open a connection to the ports of
sshd and to go on with it, and the answers must be able to leave. What certainly was denied before the change is not
lost by it, so only packets that were accepted before count.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_interface
from typing import TYPE_CHECKING

from fwguardd.packets.assumed_host import interface_towards
from fwguardd.packets.model import ConnectionState, Journey, Packet, Verdict
from fwguardd.packets.policy_results import deciding_of
from fwguardd.packets.policy_tests import family_of
from fwguardd.ruleset.model import Finding, Severity
from fwguardd.ruleset.ssh_sessions import SshSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fwguardd.packets.case_values import Address
    from fwguardd.packets.host import Host
    from fwguardd.packets.model import Undecided
    from fwguardd.ruleset.model import Family, Ruleset

    Rulesets = Mapping[Family, Ruleset]
    Outcomes = Sequence[Journey | Undecided]

CLOSES_SSH = "closes-ssh"
"""The code of the findings. Where no packets can be sent, `fwguardd.ruleset.ssh_sessions` warns under the same code."""

MOST_GUARDED = 200
"""Connections that the guard tries: with three packets each, more would take too long."""

_ACK = frozenset({"ACK"})
_CLIENT_PORT = 49_153


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
    for session in sessions:
        who.setdefault(session, f"{session.peer} has an ssh session")
    for session in listed:
        who.setdefault(session, f"{session.peer} is listed in lockout_peers")
    found: list[Guarded] = []
    for session in list(who)[:MOST_GUARDED]:
        if session.peer != session.local and not session.peer.is_loopback:
            found += _packets_of(session, host, who[session])
    return found


def listed_sessions(peers: Iterable[Address], ports: Iterable[int], host: Host) -> tuple[SshSession, ...]:
    """The connections that the peers of the settings must be able to open: from each to each of these ports."""
    found: list[SshSession] = []
    numbers = sorted(ports)
    for peer in peers:
        local = _address_towards(host, peer)
        if local is not None:
            found += [SshSession(peer, local, port) for port in numbers]
    return tuple(found)


def _address_towards(host: Host, peer: Address) -> Address | None:
    """The address of this host on the interface by which it reaches a peer."""
    name = interface_towards(host, peer)
    for interface in host.interfaces:
        for text in interface.addresses:
            address = ip_interface(text).ip
            if interface.name == name and address.version == peer.version and not address.is_link_local:
                return address
    return None


def _packets_of(session: SshSession, host: Host, who: str) -> Iterator[Guarded]:
    interface = interface_towards(host, session.peer) or _interface_with(host, session)
    if interface is None:
        return
    new = Packet(
        family_of(session.peer), "tcp", session.peer, session.local, _CLIENT_PORT, session.port, in_interface=interface
    )
    yield Guarded(session, new, who, "could not open a new connection")
    goes_on = replace(new, state=ConnectionState.ESTABLISHED, flags=_ACK)
    yield Guarded(session, goes_on, who, "could not go on with a connection")
    answer = replace(
        goes_on,
        source=session.local,
        destination=session.peer,
        source_port=session.port,
        destination_port=_CLIENT_PORT,
        in_interface=None,
        out_interface=interface,
    )
    yield Guarded(session, answer, who, "would get no answers of a connection")


def _interface_with(host: Host, session: SshSession) -> str | None:
    """The interface that has the local address of a session."""
    wanted = str(session.local)
    for interface in host.interfaces:
        for address in interface.addresses:
            if address.partition("/")[0] == wanted:
                return interface.name
    return None


def denied_packets(guarded: Sequence[Guarded], outcomes: Outcomes) -> list[Denied]:
    """The packets that were certainly denied, of each session the first one."""
    found: dict[SshSession, Denied] = {}
    for each, outcome in zip(guarded, outcomes, strict=True):
        if isinstance(outcome, Journey) and outcome.verdict is not Verdict.ACCEPT:
            found.setdefault(each.session, Denied(each, outcome))
    return list(found.values())


def lost_by_change(denied: Sequence[Denied], before: Outcomes) -> list[Denied]:
    """Those of the denied packets that were accepted before, or may have been."""
    lost: list[Denied] = []
    for each, outcome in zip(denied, before, strict=True):
        if not isinstance(outcome, Journey) or outcome.verdict is Verdict.ACCEPT:
            lost.append(each)
    return lost


def lockout_finding(denied: Denied, rulesets: Rulesets, *, forced: bool) -> Finding:
    """The finding about a packet that has to pass and does not; ``forced`` makes it a warning."""
    session, severity = denied.guarded.session, Severity.ERROR
    hint = "accept it before this change; to apply the change all the same: fwguardctl reload --force"
    if forced:
        severity, hint = Severity.WARNING, "the change was applied all the same, as asked for by reload --force"
    deciding = deciding_of(denied.journey, rulesets)
    message = f"{denied.guarded.who}, and {denied.guarded.loses} to port {session.port}: {deciding.words}"
    return Finding(CLOSES_SSH, message, deciding.origin, severity, hint, family=session.family)
