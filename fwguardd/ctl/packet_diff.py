"""``fwguardctl diff --packets``: which packets two rulesets treat otherwise, each class with a packet that was sent."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.beds import HostBeds, beds_with
from fwguardd.ctl.terminal import Painter
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.kernel.set_file_copies import copies_of_files
from fwguardd.kernel.z3_solver import Solver
from fwguardd.packets.model import Undecided, Verdict
from fwguardd.proof.class_words import verdict_words
from fwguardd.proof.described_classes import DescribedClass, described, lines_of, of_both_families
from fwguardd.proof.differences import differences
from fwguardd.proof.host_view import surroundings
from fwguardd.proof.model import Model
from fwguardd.proof.reading import RuleModeller
from fwguardd.ruleset.model import FAMILIES, Ruleset
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fwguardd.kernel.iptables import Tool
    from fwguardd.packets.host import Host
    from fwguardd.packets.model import Journey
    from fwguardd.ruleset.model import Family
    from fwguardd.ruleset.set_files import SetFile

    Rulesets = Mapping[Family, Ruleset]

SECONDS: Final = 120.0
"""The longest that the solver is asked."""

NOTHING: Final = "no packet is treated otherwise"
_NAT_LEFT_OUT: Final = "packets of connections that have NAT already were not asked about"
_BY_THE_HOST: Final = frozenset({"no route", "forwarding is off", "invalid address", "reverse path"})
_DEFECT: Final = "that is a defect of fwguardd: please report it with both rulesets"


@dataclass(frozen=True, slots=True)
class Compared:
    """What is compared, the set files that both have, and how a last line begins."""

    before: Rulesets
    after: Rulesets
    sets: tuple[SetFile, ...]
    name: str = ""

    def of(self, family: Family) -> tuple[Ruleset, Ruleset]:
        """The two rulesets of a family; an empty one where there is none."""
        return self.before.get(family, Ruleset(family, {})), self.after.get(family, Ruleset(family, {}))


@dataclass(frozen=True, slots=True)
class Sent:
    """What the kernel did with a witness: in words, and whether the model says otherwise."""

    words: str
    is_contradiction: bool = False


@dataclass(frozen=True, slots=True)
class PacketDiff:
    """The classes of packets that are treated otherwise, each with what became of its witness; ``notes`` are what
    limits the answer, and ``is_complete`` says that there are no others."""

    classes: tuple[tuple[DescribedClass, Sent], ...]
    notes: tuple[str, ...]
    is_complete: bool

    @property
    def total(self) -> str:
        """The result in a line."""
        if not self.classes and self.is_complete:
            return NOTHING
        words = counted(len(self.classes), "class", "classes")
        return f"{words} of packets treated otherwise{'' if self.is_complete else ', and perhaps more'}"

    def document(self) -> dict[str, Any]:
        """It as JSON values."""
        classes = [
            {**each.document(), "sent": sent.words, "contradicted": sent.is_contradiction}
            for each, sent in self.classes
        ]
        return {"classes": classes, "complete": self.is_complete, "notes": list(self.notes), "sentence": self.total}


def show(compared: Compared, tool: Tool, *, as_document: bool) -> None:
    """Compare, and print. Raises SolverMissingError and other ReportedError."""
    with beds_with(tool) as beds:
        found = packet_diff(compared, beds)
    if as_document:
        print(json.dumps({"ok": True, "findings": [], "packets": found.document()}))
        return
    paint = Painter()
    for each, sent in found.classes:
        print(paint.fit(paint.bold(each.sentence), indent=2))
        for line in (*lines_of(each), sent.words):
            print(paint.fit(f"    {line}", indent=6))
    for note in found.notes:
        print(paint.fit(f"note: {note}"))
    print(paint.fit(f"{compared.name}{found.total}"))


def packet_diff(compared: Compared, beds: HostBeds) -> PacketDiff:
    """Which packets are treated otherwise. Raises ReportedError."""
    found: list[DescribedClass] = []
    notes: dict[str, None] = {}
    is_complete = True
    with Solver(time.monotonic() + SECONDS) as solver:
        for family in FAMILIES:
            before, after = _models(compared, family, beds.host)
            if _has_nat(before) or _has_nat(after):
                notes[_NAT_LEFT_OUT] = None
            of_family = differences(before, after, solver)
            found += described(of_family, before, after)
            if of_family.left_out:
                is_complete = False
                notes[f"there may be more packets: {of_family.left_out}"] = None
                break
    classes = of_both_families(found)
    return PacketDiff(tuple(zip(classes, _sent(classes, compared, beds), strict=True)), tuple(notes), is_complete)


def _models(compared: Compared, family: Family, host: Host) -> tuple[Model, Model]:
    before, after = compared.of(family)
    known = surroundings(family, [before, after], host, compared.sets)
    reader = RuleModeller(known)
    return Model.of(before, known, reader), Model.of(after, known, reader)


def _has_nat(model: Model) -> bool:
    return any(model.rules.tables.get("nat", {}).values())


def _sent(classes: Sequence[DescribedClass], compared: Compared, beds: HostBeds) -> list[Sent]:
    """What the kernel does with the witness of each class."""
    packets = [each.packet for each in classes if each.can_be_sent]
    journeys: Iterator[tuple[Journey | Undecided, Journey | Undecided]] = iter(())
    failed = ""
    if packets:
        try:
            with beds.open(compared.before) as bed:
                before = bed.send(packets)
            with beds.with_sets(copies_of_files(compared.sets)).open(compared.after) as bed:
                journeys = zip(before, bed.send(packets), strict=True)
        except NamespaceError as error:
            failed = f"not sent: {error}"
    results: list[Sent] = []
    for each in classes:
        if failed or not each.can_be_sent:
            results.append(Sent(failed or _why_not(each)))
        else:
            results.append(_judged(each, *next(journeys)))
    return results


def _why_not(each: DescribedClass) -> str:
    if each.depends:
        return "not sent: what becomes of it depends on more than the packet"
    return "not sent: no packet of this kind can be made here"


def _judged(each: DescribedClass, before: Journey | Undecided, after: Journey | Undecided) -> Sent:
    for journey in (before, after):
        why = _undecided(journey)
        if why:
            return Sent(f"sent, not decided by the rules: {why}")
    verdicts = _verdict(before), _verdict(after)
    words = f"{verdict_words(verdicts[0])} before, {verdict_words(verdicts[1])} now"
    if verdicts == each.verdicts:
        return Sent(f"sent through both rulesets: {words}")
    return Sent(f"sent through both rulesets: {words}; the kernel contradicts the model: {_DEFECT}", True)  # noqa: FBT003


def _undecided(journey: Journey | Undecided) -> str:
    """Why the kernel did not say what the rules do; "" if it did."""
    if isinstance(journey, Undecided):
        return journey.because
    if journey.routed in _BY_THE_HOST:
        return f"this host does not take the packet ({journey.routed})"
    return ""


def _verdict(journey: Journey | Undecided) -> Verdict:
    assert not isinstance(journey, Undecided)
    return journey.verdict
