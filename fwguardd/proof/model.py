"""A ruleset of one family as a model, and questions to it.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fwguardd.proof.answers import decide
from fwguardd.proof.fields import NEW, SCTP, TCP, UDP, PacketField
from fwguardd.proof.formulas import both
from fwguardd.proof.intervals import single
from fwguardd.proof.reading import RuleModeller
from fwguardd.proof.traversal import traverse
from fwguardd.proof.witness import Witness, witness_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fwguardd.proof.answers import Answer, Asker, Preference, Values
    from fwguardd.proof.fields import HostFacts
    from fwguardd.proof.formulas import Formula, Scope
    from fwguardd.proof.packet_sets import PacketSet
    from fwguardd.proof.reading import ReadTables
    from fwguardd.proof.traversal import Outcome
    from fwguardd.ruleset.model import Ruleset

USUAL: Sequence[Preference] = (
    ({PacketField.STATE: single(NEW)},),
    ({PacketField.FLAGS: single(2)},),
    ({PacketField.PROTOCOL: ((TCP, TCP), (UDP, UDP), (SCTP, SCTP))},),
    ({PacketField.SPORT: single(49_152)},),
    ({PacketField.CODE: single(0)},),
    ({PacketField.MARK: single(0)},),
    ({PacketField.UID: single(0)},),
    ({PacketField.GID: single(0)},),
)
"""What a packet in an answer should have, so that it looks usual: it is new, has SYN and a client's port."""


@dataclass(frozen=True, slots=True)
class Model:
    """The rules of one ruleset, read, and what is known besides them. Two that are compared share the latter."""

    rules: ReadTables
    known: HostFacts

    @classmethod
    def of(cls, ruleset: Ruleset, known: HostFacts, reader: RuleModeller | None = None) -> Model:
        """The model of a ruleset. A ``reader`` with the same ``known`` reads the rules of several only once."""
        return cls((reader or RuleModeller(known)).read(ruleset), known)

    def outcome(self, packets: PacketSet, scope: Scope) -> Outcome:
        """What becomes of packets, as formulas."""
        return traverse(self.rules, packets.direction, scope, self.known)

    def find(
        self,
        packets: PacketSet,
        wanted: Callable[[Outcome, Scope], Formula],
        solver: Asker,
        preferred: Sequence[Preference] = USUAL,
    ) -> Answer:
        """Whether there is a packet among these of which ``wanted`` holds. `Proved` says that there is none. Raises
        ReportedError where the solver has no answer."""

        def build(scope: Scope) -> Formula:
            condition = packets.condition(scope, self.known.family)
            if condition is False:
                return False
            return both(condition, wanted(self.outcome(packets, scope), scope))

        return decide(build, packets.scope(self.known.family), self.known.family, solver, preferred)

    def witness(self, packets: PacketSet, values: Values) -> Witness:
        """The packet of an answer, with what this ruleset does with it."""
        return witness_of(self.rules, packets, values, self.known)
