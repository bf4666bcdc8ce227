"""A bed without a kernel: it walks the rules of the table filter as iptables does, for tests of what is pure.

It knows interfaces, addresses, protocols, destination ports and states; a rule with anything else matches nothing.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from ipaddress import ip_network
from typing import TYPE_CHECKING

from fwguardd.packets.model import Direction, Journey, Packet, Step, Undecided, Verdict
from fwguardd.ruleset.conditions import Condition, read_conditions
from fwguardd.ruleset.model import NOT_STATED, Family, Ruleset
from fwguardd.ruleset.rule_view import RuleView

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from ipaddress import IPv4Address, IPv6Address

    from fwguardd.ruleset.model import Table

HOOKS = {Direction.INBOUND: "INPUT", Direction.OUTBOUND: "OUTPUT", Direction.FORWARDED: "FORWARD"}


@dataclass
class SimulatedBed:
    """The rules of one ruleset for each family."""

    rulesets: Mapping[Family, Ruleset]

    def send(self, packets: Sequence[Packet]) -> list[Journey | Undecided]:
        """What becomes of each packet."""
        return [self._journey(packet) for packet in packets]

    def _journey(self, packet: Packet) -> Journey | Undecided:
        table = self.rulesets[packet.family].tables["filter"]
        chain = table.chains[HOOKS[packet.direction]]
        steps = list(_walk(table, chain.name, packet))
        if not steps or steps[-1].outcome not in ("accept", "drop", "reject"):
            policy = "ACCEPT" if chain.policy in (None, NOT_STATED) else str(chain.policy)
            steps.append(Step("filter", chain.name, None, policy.lower()))
        return Journey(packet, tuple(steps), Verdict(steps[-1].outcome), "local", steps[-1])


def _walk(table: Table, name: str, packet: Packet) -> Iterator[Step]:
    for position, rule in enumerate(table.chains[name].rules, 1):
        view = RuleView.of(rule.text)
        if not all(_meets(condition, packet) for condition in read_conditions(view)):
            continue
        target = view.target or ""
        if target in table.chains:
            yield Step("filter", name, position, f"jump {target}")
            last = ""
            for step in _walk(table, target, packet):
                yield step
                last = step.outcome
            if last in ("accept", "drop", "reject"):
                return
        elif target in ("ACCEPT", "DROP", "REJECT"):
            yield Step("filter", name, position, target.lower())
            return
        elif target == "RETURN":
            yield Step("filter", name, position, "return")
            return
        else:
            yield Step("filter", name, position, "continue")


def _meets(condition: Condition, packet: Packet) -> bool:
    return _fits(condition, packet) is not condition.negated


def _fits(condition: Condition, packet: Packet) -> bool:
    value = condition.value
    fits = {
        "-i": value == packet.in_interface,
        "-o": value == packet.out_interface,
        "-s": _in_network(packet.source, value),
        "-d": _in_network(packet.destination, value),
        "-p": value == packet.protocol.replace("icmpv6", "ipv6-icmp"),
        "--dport": str(packet.destination_port) in value.split(","),
        "--ctstate": packet.state.value.upper() in value.split(","),
    }
    return fits.get(condition.name, False)


def _in_network(address: IPv4Address | IPv6Address, value: str) -> bool:
    with contextlib.suppress(ValueError):
        return address in ip_network(value, strict=False)
    return False


@contextlib.contextmanager
def simulated(rulesets: Mapping[Family, Ruleset]) -> Iterator[SimulatedBed]:
    """Open a bed, as those who prove a ruleset do."""
    yield SimulatedBed(rulesets)
