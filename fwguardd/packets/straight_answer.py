"""Answers that do not come back through this host: the hairpin that has lost its way.

A packet comes from a network, NAT changes its destination to a host of the same network, and it goes back there with
its source as it was. That host answers its neighbour straight, from an address that the neighbour did not ask.

This module is pure.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fwguardd.packets.journeys import ends_at, last_view, met_in
from fwguardd.packets.packet_words import WITH_PORTS
from fwguardd.ruleset.model import Finding, Severity
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.packets.host_routes import HostRoutes, Network
    from fwguardd.packets.journeys import Ends, Met
    from fwguardd.packets.model import Journey
    from fwguardd.ruleset.model import Family, Origin, Ruleset

STRAIGHT_ANSWER: Final = "straight-answer"
"""The code of the warning."""

_CHANGES_SOURCE: Final = frozenset({"SNAT", "MASQUERADE", "NETMAP", "SAME"})


@dataclass(frozen=True, slots=True)
class StraightAnswer:
    """An answer that goes straight to the client. ``ends`` are those of the packet as it leaves; ``asked`` is the
    address that the client sent it to; ``network`` is that of both hosts."""

    ends: Ends
    asked: object
    protocol: str
    network: Network

    @property
    def sentence(self) -> str:
        """What happens, for people."""
        server, client = self.ends.destination, self.ends.source
        return (
            f"The answer does not come back through this host: {server} sends it straight to {client}, in the same "
            f"network, and {client} drops what does not come from {self.asked}."
        )

    def finding(self, packet: str, origin: Origin) -> Finding:
        """A warning about a test that expects such a packet to be accepted."""
        message = f"{packet}: it is accepted, and no connection comes of it. {self.sentence.removesuffix('.')}"
        return Finding(STRAIGHT_ANSWER, message, origin, Severity.WARNING, f'add "{self.rule}"')

    @property
    def rule(self) -> str:
        """The rule that brings the answers back."""
        ports = ""
        if self.protocol in WITH_PORTS and self.ends.destination_port is not None:
            ports = f" --dport {self.ends.destination_port}"
        place = f"-s {self.network} -d {self.ends.destination} -p {self.protocol}{ports}"
        return f"-t nat -A POSTROUTING {place} -j MASQUERADE"

    def document(self) -> dict[str, Any]:
        """It as JSON values. The keys are a contract."""
        return {"sentence": self.sentence, "rule": self.rule}


def straight_answer(journey: Journey, rulesets: Mapping[Family, Ruleset], routes: HostRoutes) -> StraightAnswer | None:
    """The answer to an accepted packet, if it does not come back through this host; None if it does."""
    if not _has_another_destination(journey) or any(map(_changes_source, met_in(journey, rulesets))):
        return None
    packet, ends = journey.packet, _ends(journey)
    shared = filter(partial(_has_both, ends), _networks_of(journey, routes))
    return next((StraightAnswer(ends, packet.destination, packet.protocol, network) for network in shared), None)


def _ends(journey: Journey) -> Ends:
    """The addresses and ports with which the packet leaves, but for those that NAT of the source changes."""
    return ends_at(last_view(journey), journey.packet)


def _has_another_destination(journey: Journey) -> bool:
    """Whether NAT has sent a packet back to where it came from."""
    return turns_back(journey) and _ends(journey).destination != journey.packet.destination


def _networks_of(journey: Journey, routes: HostRoutes) -> Iterator[Network]:
    """The networks of the interface by which the packet leaves."""
    for interface, network in routes.networks(journey.packet.source.version):
        if interface == journey.routed:
            yield network


def _has_both(ends: Ends, network: Network) -> bool:
    return ends.source in network and ends.destination in network


def turns_back(journey: Journey) -> bool:
    """Whether a packet leaves by the interface that it came in by."""
    return journey.packet.in_interface is not None and journey.routed == journey.packet.in_interface


def _changes_source(met: Met) -> bool:
    """Whether a step changes the source of the packet."""
    return met.step.table == "nat" and RuleView.of(met.text).target in _CHANGES_SOURCE
