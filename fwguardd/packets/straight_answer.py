"""Answers that do not come back through this host: the hairpin that has lost its way.

A packet comes from a network, NAT changes its destination to a host of the same network, and it goes back there with
its source as it was. That host answers its neighbour straight, from an address that the neighbour did not ask.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fwguardd.packets.journeys import ends_at, last_view, met_in
from fwguardd.packets.packet_words import WITH_PORTS
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.packets.host_routes import HostRoutes, Network
    from fwguardd.packets.journeys import Ends, Met
    from fwguardd.packets.model import Journey
    from fwguardd.ruleset.model import Family, Ruleset

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
    packet, ends = journey.packet, ends_at(last_view(journey), journey.packet)
    if packet.in_interface is None or journey.routed != packet.in_interface or ends.destination == packet.destination:
        return None
    if any(map(_changes_source, met_in(journey, rulesets))):
        return None
    for interface, network in routes.networks(packet.source.version):
        if interface == journey.routed and ends.source in network and ends.destination in network:
            return StraightAnswer(ends, packet.destination, packet.protocol, network)
    return None


def _changes_source(met: Met) -> bool:
    """Whether a step changes the source of the packet."""
    return met.step.table == "nat" and RuleView.of(met.text).target in _CHANGES_SOURCE
