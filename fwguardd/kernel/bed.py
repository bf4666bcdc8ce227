"""Beds: a ruleset in a rehearsal namespace that has the network of a host, and packets sent through it.

The namespace is one of those that rehearsals use, however it was made. Nothing is sent out of it, nothing of it is in
the kernel log of the host, and it ends with the bed.
"""

from __future__ import annotations

import contextlib
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, Final

from fwguardd.kernel.bed_edits import edit_documents
from fwguardd.kernel.ipset_copies import read_copies
from fwguardd.kernel.namespaces import NamespaceError, NamespaceMethod
from fwguardd.kernel.objects_of_rules import objects_named
from fwguardd.kernel.rehearsal import steps_to_load
from fwguardd.kernel.rehearsed_rules import RehearsedRules
from fwguardd.packets.bed_change import change_between, changes_sets
from fwguardd.packets.bed_rules import Owner, bed_rules, translates_addresses
from fwguardd.packets.documents import packet_document
from fwguardd.packets.host import Host
from fwguardd.packets.model import Direction
from fwguardd.packets.traces import read_journey
from fwguardd.ruleset.chain_edits import NoEditError
from fwguardd.ruleset.model import Candidate
from fwguardd.ruleset.operations import render_plan
from fwguardd.ruleset.references import named_sets
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fwguardd.kernel.bed_edits import EditDocument
    from fwguardd.kernel.ipset_copies import Copy
    from fwguardd.kernel.named_objects import NamedObject
    from fwguardd.kernel.namespaces import NamespacePool, ScratchNamespace
    from fwguardd.packets.bed_rules import BedRules
    from fwguardd.packets.model import Journey, Packet, Undecided
    from fwguardd.ruleset.model import Family, Ruleset
    from fwguardd.ruleset.operations import Plan

    Step = dict[str, Any]

PACKETS_PER_REQUEST: Final = 500
"""Packets that are sent to the worker at once."""


ROOT: Final = Owner(0, 0)


@dataclass(frozen=True, slots=True)
class _Named:
    """What rules name: sets with their entries, sets of which only the family is known, and other objects."""

    copies: Mapping[str, Copy] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)
    objects: Sequence[NamedObject] = ()

    def request(self) -> dict[str, Any]:
        """The part of the request that makes them (`fwguardd.kernel.rehearsal_worker`)."""
        return {"set_copies": self.copies, "sets": self.others, "objects": list(self.objects)}


_NOTHING_NAMED: Final = _Named()


class LoadedBed:
    """A bed with a ruleset in it (`fwguardd.packets.bed.Bed`). ``left_out`` says, for messages, what of the host's
    network the namespace lacks."""

    def __init__(
        self,
        backend: str,
        scratch: ScratchNamespace,
        rulesets: Mapping[Family, Ruleset],
        sets: Mapping[str, Copy],
        rehearsed: RehearsedRules,
    ) -> None:
        self._backend, self._given_sets, self._rehearsed = backend, sets, rehearsed
        self._scratch = scratch
        self._rulesets = dict(rulesets)
        self._host, self._named = Host(), _NOTHING_NAMED
        self._sets: frozenset[str] = frozenset()
        self._rules: dict[Family, BedRules] = {}
        self._owner = ROOT
        self.left_out: tuple[str, ...] = ()

    def make(self, host: Host) -> None:
        """Rebuild the network of the host, and load the rules. Raises NamespaceError."""
        self._host, self._named = host, self._named_by(self._rulesets)
        self._sets = frozenset(self._named.copies)
        self._rules = self._rules_for(ROOT)
        answer = self._load({"bed": host.document(), **self._named.request()})
        self.left_out = tuple(answer["left_out"])
        if answer["empty_sets"]:
            self._sets -= set(answer["empty_sets"])
            self._rules = self._rules_for(ROOT)
            self._load({})

    def change(self, rulesets: Mapping[Family, Ruleset], host: Host) -> bool:
        """Load these rulesets in place of those of the same families, where this is a bed of that host and the change
        is small; False where nothing was changed, since that needs another bed. Raises NamespaceError.

        The rulesets are such as iptables-save prints.
        """
        wanted = {**self._rulesets, **rulesets}
        if not self._may_hold(wanted, host):
            return False
        self._become(ROOT)
        rules = {family: self._bed_rules(ruleset, ROOT) for family, ruleset in rulesets.items()}
        plans = self._plans_to(rules)
        if plans is None:
            return False
        edits = self._edits(plans)
        self._rulesets, self._rules = wanted, {**self._rules, **rules}
        if plans:
            self._request_load({"edits": edits}, {plan.family: _steps_of(plan) for plan in plans})
        return True

    def _may_hold(self, wanted: Mapping[Family, Ruleset], host: Host) -> bool:
        """Whether this is a bed of that host and has what these rulesets name, and no packet changes that."""
        same = host == self._host and self._named_by(wanted) == self._named
        return same and not any(map(changes_sets, wanted.values()))

    def _plans_to(self, rules: Mapping[Family, BedRules]) -> list[Plan] | None:
        """What makes these rules of those that are loaded; None where there is no short way."""
        plans: list[Plan] = []
        for family, wanted in rules.items():
            loaded = self._rules.get(family)
            if loaded is None:
                return None
            plan = change_between(loaded.loaded, wanted.loaded)
            if plan is None:
                return None
            if plan.operations:
                plans.append(plan)
        return plans

    def _edits(self, plans: Sequence[Plan]) -> list[EditDocument]:
        """Plans for the rules that are loaded, as edits over netlink; none where they are left to iptables."""
        try:
            return edit_documents(plans, self._loaded, self._rehearsed)
        except NoEditError:
            return []

    @property
    def _loaded(self) -> dict[Family, Ruleset]:
        return {family: rules.loaded for family, rules in self._rules.items()}

    def _named_by(self, rulesets: Mapping[Family, Ruleset]) -> _Named:
        """What these rulesets name, as it is on this host now."""
        candidate = Candidate(rulesets)
        named, _ = objects_named(candidate)
        copies = read_copies(named.sets) | self._given(candidate)
        return _Named(
            copies, {name: family for name, family in named.sets.items() if name not in copies}, named.objects
        )

    def _given(self, candidate: Candidate) -> dict[str, Copy]:
        """The sets that rules name and that the bed was given."""
        return {name: self._given_sets[name] for name in named_sets(candidate) if name in self._given_sets}

    def send(self, packets: Sequence[Packet]) -> list[Journey | Undecided]:
        """What the kernel did with each packet, in the order of the packets. Raises NamespaceError."""
        journeys: dict[int, Journey | Undecided] = {}
        for owner, places in self._by_owner(packets).items():
            self._become(owner)
            for start in range(0, len(places), PACKETS_PER_REQUEST):
                part = places[start : start + PACKETS_PER_REQUEST]
                journeys |= zip(part, self._send([packets[place] for place in part]), strict=True)
        return [journeys[place] for place in range(len(packets))]

    def _send(self, packets: Sequence[Packet]) -> Iterator[Journey | Undecided]:
        documents = [packet_document(self._without_owner(packet)) for packet in packets]
        self._scratch.request({"packets": documents})
        for packet, result in zip(packets, self._scratch.answer()["journeys"], strict=True):
            yield read_journey(packet, result, self._rules.get(packet.family))

    def _by_owner(self, packets: Sequence[Packet]) -> dict[Owner, list[int]]:
        """The places of the packets that are sent with the same rules loaded."""
        found: dict[Owner, list[int]] = {}
        for place, packet in enumerate(packets):
            found.setdefault(self._owner_of(packet), []).append(place)
        return found

    def _owner_of(self, packet: Packet) -> Owner:
        """The owner for whom the rules are loaded: root if the kernel can be shown the real one."""
        if self._scratch.method is NamespaceMethod.PRIVILEGED or packet.direction is not Direction.OUTBOUND:
            return ROOT
        return Owner(packet.uid or 0, packet.gid or 0)

    def _without_owner(self, packet: Packet) -> Packet:
        if self._owner_of(packet) == ROOT:
            return packet
        return replace(packet, uid=None, gid=None)

    def _become(self, owner: Owner) -> None:
        """Load the rules as they are for packets of this owner. Raises NamespaceError."""
        if owner == self._owner:
            return
        self._rules = self._rules_for(owner)
        self._load({})
        self._owner = owner

    def _rules_for(self, owner: Owner) -> dict[Family, BedRules]:
        return {family: self._bed_rules(ruleset, owner) for family, ruleset in self._rulesets.items()}

    def _bed_rules(self, ruleset: Ruleset, owner: Owner) -> BedRules:
        return bed_rules(ruleset, self._sets, _other_than_root(owner))

    def _load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Load all rules. Raises NamespaceError."""
        steps: dict[Family, list[Step]] = {}
        for family, rules in self._rules.items():
            steps[family] = steps_to_load(self._backend, self._scratch, rules.loaded)
        return self._request_load(request, steps)

    def _request_load(self, request: dict[str, Any], steps: Mapping[Family, Sequence[Step]]) -> dict[str, Any]:
        """Let these steps run in the bed, as a part of a request. Raises NamespaceError."""
        loads = [{"family": family.number, "steps": some} for family, some in steps.items()]
        translates = any(map(translates_addresses, self._rulesets.values()))
        self._scratch.request(request | {"backend": self._backend, "loads": loads, "translates": translates})
        answer = self._scratch.answer()
        _raise_if_refused(answer["results"])
        return answer


def _steps_of(plan: Plan) -> list[Step]:
    """The steps that carry out a plan."""
    return [{"restore": text, "noflush": True} for text in render_plan(plan)]


def _other_than_root(owner: Owner) -> Owner | None:
    if owner == ROOT:
        return None
    return owner


@dataclass(frozen=True, slots=True)
class Beds:
    """Beds with one backend, in namespaces from one pool. ``sets`` are sets with their entries that take the place of
    those of the host. ``rehearsed`` has what new rules are made of, for edits over netlink."""

    backend: str
    pool: NamespacePool
    sets: Mapping[str, Copy] = field(default_factory=dict)
    rehearsed: RehearsedRules = field(default_factory=RehearsedRules)

    @contextlib.contextmanager
    def prove(self, rulesets: Mapping[Family, Ruleset], host: Host) -> Iterator[LoadedBed]:
        """A bed with these rulesets: those of a `Candidate`, of a `fwguardd.ruleset.canonical.Canonical`, or live ones.

        Raises NamespaceError where there can be no bed, or the rules do not load.
        """
        with self.pool.acquire() as scratch:
            bed = LoadedBed(self.backend, scratch, rulesets, self.sets, self.rehearsed)
            bed.make(host)
            yield bed


def _raise_if_refused(results: Sequence[Mapping[str, Any]]) -> None:
    for result in results:
        if result["code"] != 0:
            raise NamespaceError(
                f"the rules do not load where packets are sent through them: {result['stderr'].strip()}"
            )
