"""A packet through all tables in the order of the hooks: when it is accepted, dropped and rejected, as formulas.

The order of the tables in a hook is that of their priorities (include/uapi/linux/netfilter_ipv4.h); connection tracking
stands behind raw. The table nat sees the first packet of a connection only. What it makes of the addresses counts for
the tables behind it, and for the routing: a packet to this host may be forwarded then, and the other way round. The NAT
of a connection that was there before is free.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fwguardd.packets.model import Direction
from fwguardd.proof.fields import (
    ESTABLISHED,
    INVALID,
    MULTICAST,
    NEW,
    NO_INTERFACE,
    NO_OWNER,
    RELATED,
    UNTRACKED,
    Fields,
    PacketField,
    packet_leaves,
    width_of,
)
from fwguardd.proof.formulas import FreePart, Leaf, Variable, all_of, any_of, both, negation, without
from fwguardd.proof.intervals import single, united
from fwguardd.proof.walk import TableWalk, changed
from fwguardd.ruleset.model import NOT_STATED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.proof.fields import HostFacts
    from fwguardd.proof.formulas import Formula, Scope
    from fwguardd.proof.reading import ReadTables
    from fwguardd.proof.walk import Visit
    from fwguardd.ruleset.model import Chain, Origin

_NAT: Final = FreePart("the NAT of a connection that was there before")
HAS_NAT: Final = Variable("the connection has NAT", 1, _NAT)
"""Whether a packet of a connection that was there before has been given other addresses."""
_ROUTING: Final = FreePart("the routing of a packet with another destination")
_TRANSLATED: Final = (PacketField.SOURCE, PacketField.SPORT, PacketField.DESTINATION, PacketField.DPORT)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of packets. ``delivered`` are those that this host takes: accepted, and not forwarded. ``reached``
    are the fields behind the first routing: addresses and ports that the packet gets to. ``visits`` are all chains."""

    accept: Formula
    drop: Formula
    reject: Formula
    delivered: Formula
    reached: Fields
    visits: tuple[Visit, ...]


def traverse(rules: ReadTables, direction: Direction, scope: Scope, known: HostFacts) -> Outcome:
    """What becomes of the packets of a direction: all those whose variables the scope permits."""
    way = _Way(rules, scope, known, direction)
    fields = initial_fields(known, direction)
    if direction is Direction.OUTBOUND:
        way.leave(fields)
    else:
        way.arrive(fields)
    return way.outcome()


def initial_fields(known: HostFacts, direction: Direction) -> Fields:
    """A packet as it begins its way: a variable for each field that packets of the direction have."""
    values = packet_leaves(known.family)
    none = Leaf.number(NO_INTERFACE)
    values |= {PacketField.DNAT: Leaf.number(0), PacketField.SNAT: Leaf.number(0)}
    values[PacketField.HERE] = Leaf.number(int(direction is Direction.INBOUND))
    if direction is Direction.OUTBOUND:
        values[PacketField.IN] = none
    else:
        values |= dict.fromkeys((PacketField.UID, PacketField.GID), Leaf.number(NO_OWNER))
    return Fields(values)


@dataclass(slots=True)
class _Way:
    """The way of packets so far: ``live`` are those that still go on, with these fields."""

    rules: ReadTables
    scope: Scope
    known: HostFacts
    direction: Direction
    live: Formula = True
    fields: Fields = field(default_factory=lambda: Fields({}))
    reached: Fields = field(default_factory=lambda: Fields({}))
    accept: list[Formula] = field(default_factory=list)
    drop: list[Formula] = field(default_factory=list)
    reject: list[Formula] = field(default_factory=list)
    delivered: Formula = False
    visits: list[Visit] = field(default_factory=list)

    def outcome(self) -> Outcome:
        """What became of all packets."""
        ends = any_of(self.accept), any_of(self.drop), any_of(self.reject)
        return Outcome(*ends, self.delivered, self.reached, tuple(self.visits))

    def arrive(self, fields: Fields) -> None:
        """The way of packets from outside."""
        out = fields[PacketField.OUT]
        self.fields = fields.changed({PacketField.OUT: Leaf.number(NO_INTERFACE)})
        self._track("PREROUTING")
        self._pass(("mangle",), "PREROUTING")
        self._translate("PREROUTING")
        self.reached, arrived = self.fields, self.live
        stays = self._stays()
        self.live = both(arrived, stays)
        self._pass(("mangle", "filter", "security"), "INPUT")
        self._translate("INPUT")
        self.delivered = self.live
        self.accept.append(self.live)
        self.live, self.fields = without(arrived, stays), self.reached.changed({PacketField.OUT: out})
        self._reroute()
        self._pass(("mangle", "filter", "security"), "FORWARD")
        self._leave_by_interface()

    def leave(self, fields: Fields) -> None:
        """The way of packets of this host."""
        self.fields = fields
        self._track("OUTPUT")
        self._pass(("mangle",), "OUTPUT")
        self._translate("OUTPUT")
        self._reroute()
        self.reached = self.fields
        self._pass(("filter", "security"), "OUTPUT")
        self._leave_by_interface()

    def _leave_by_interface(self) -> None:
        self._pass(("mangle",), "POSTROUTING")
        self._translate("POSTROUTING")
        self.accept.append(self.live)

    def _track(self, hook: str) -> None:
        """The table raw, and connection tracking: before it no packet has a connection (net/netfilter/xt_state.c), and
        those that raw exempts get none."""
        state = self.fields[PacketField.STATE]
        exempt = self.scope.inside(state, single(UNTRACKED))
        before = self.scope.chosen("state in raw", 3, exempt, Leaf.number(UNTRACKED), Leaf.number(INVALID))
        self.fields = self.fields.changed({PacketField.STATE: before})
        self._pass(("raw",), hook)
        exempt = self.scope.inside(self.fields[PacketField.STATE], single(UNTRACKED))
        after = self.scope.chosen("state", 3, exempt, Leaf.number(UNTRACKED), state)
        self.fields = self.fields.changed({PacketField.STATE: after})

    def _pass(self, tables: Iterable[str], hook: str) -> None:
        """The base chains of a hook in these tables."""
        for table in tables:
            chain = self._chain(table, hook)
            if chain is not None and self.live is not False:
                self._enter(table, chain)

    def _chain(self, table: str, hook: str) -> Chain | None:
        known = self.rules.ruleset.tables.get(table)
        if known is None:
            return None
        return known.chains.get(hook)

    def _enter(self, table: str, chain: Chain) -> None:
        walk = TableWalk(self.scope, self.known, self.rules, table, chain.name, self.visits)
        visit, passage = walk.enter(chain.name, self.fields)
        visit.start, visit.policy, visit.origin = (
            self.live,
            chain.policy_after("ACCEPT") or "ACCEPT",
            policy_origin(chain),
        )
        self.drop.append(both(self.live, passage.drop))
        self.reject.append(both(self.live, passage.reject))
        goes_on = passage.accept
        if visit.policy == "DROP":
            self.drop.append(both(self.live, passage.returns))
        else:
            goes_on = any_of((passage.accept, passage.returns))
        self.fields = passage.fields
        self.live = both(self.live, goes_on)

    def _translate(self, hook: str) -> None:
        """The table nat: its chain sees packets that begin a connection."""
        if not self._has_nat():
            return
        self._free_translation(hook)
        chain = self._chain("nat", hook)
        begins = self.scope.inside(self.fields[PacketField.STATE], single(NEW))
        if chain is None or begins is False or self.live is False:
            return
        before, passes = self.fields, without(self.live, begins)
        self.live = both(self.live, begins)
        self._enter("nat", chain)
        self.live = any_of((passes, self.live))
        changes = {name: self.fields[name] for name in PacketField if self.fields[name] != before[name]}
        self.fields = changed(self.scope, self.known, before, begins, changes)

    def _has_nat(self) -> bool:
        table = self.rules.tables.get("nat", {})
        return any(table.values())

    def _free_translation(self, hook: str) -> None:
        """Packets of connections that were there before have the addresses that NAT gave to these."""
        state = self.fields[PacketField.STATE]
        earlier = self.scope.inside(state, united(((ESTABLISHED, ESTABLISHED), (RELATED, RELATED))))
        if earlier is False or hook not in ("PREROUTING", "OUTPUT"):
            return
        changes = {PacketField.HERE: Leaf.number(0)}
        for name in (*_TRANSLATED, PacketField.DNAT, PacketField.SNAT):
            changes[name] = self.scope.free(f"{name} of the connection", width_of(name, self.known.family), _NAT)
        translated = both(earlier, self.scope.maybe(HAS_NAT.name, _NAT))
        self.fields = changed(self.scope, self.known, self.fields, translated, changes)

    def _stays(self) -> Formula:
        """Whether routing takes packets for those of this host. The direction says it of those that NAT does not
        change: this host may get other addresses than it has now."""
        inbound = self.direction is Direction.INBOUND
        sent_on = self.scope.inside(self.fields[PacketField.DNAT], single(1))
        if sent_on is False:
            return inbound
        return any_of((both(sent_on, self._is_own()), all_of((inbound, negation(sent_on)))))

    def _is_own(self) -> Formula:
        """Whether the destination is this host."""
        if self.known.own is None:
            return self.scope.maybe("routed to this host", _ROUTING)
        mine = united((*self.known.own, *self.known.broadcast, *MULTICAST[self.known.family]))
        return self.scope.inside(self.fields[PacketField.DESTINATION], mine)

    def _reroute(self) -> None:
        """A packet whose destination has changed may leave by another interface: that of the route to it, if it is
        known."""
        sent_on = self.scope.inside(self.fields[PacketField.DNAT], single(1))
        if sent_on is False:
            return
        width = width_of(PacketField.OUT, self.known.family)
        out = self.scope.free("out after routing again", width, _ROUTING)
        for number, destinations in self.known.routes.items():
            leads = self.scope.inside(self.fields[PacketField.DESTINATION], destinations)
            out = self.scope.chosen("route", width, leads, Leaf.number(number), out)
        self.fields = changed(self.scope, self.known, self.fields, sent_on, {PacketField.OUT: out})


def policy_origin(chain: Chain) -> Origin | None:
    """The place where the policy of a chain is written; None where no file states it."""
    if chain.policy == NOT_STATED:
        return None
    return chain.origin
