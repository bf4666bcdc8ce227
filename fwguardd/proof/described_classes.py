"""What a change of rules does to packets, described for people and programs: classes, rules that decide, and witnesses.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fwguardd.packets.model import Direction
from fwguardd.proof.changes import changed_rules
from fwguardd.proof.class_words import class_words, depends_words, family_names, treatment_words, verdict_words
from fwguardd.proof.packet_sets import all_packets
from fwguardd.proof.witness import rules_met

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from fwguardd.packets.model import Packet, Verdict
    from fwguardd.proof.differences import Differences
    from fwguardd.proof.model import Model
    from fwguardd.proof.packet_classes import PacketClass
    from fwguardd.proof.witness import Decided
    from fwguardd.ruleset.model import Family


@dataclass(frozen=True, slots=True)
class DescribedClass:
    """A class of packets that is treated otherwise, of one family or of both. ``before`` and ``after`` are what decides
    about the ``packet`` that is its witness."""

    families: tuple[Family, ...]
    packets: str
    treatment: str
    depends: str
    by: str
    classes: tuple[PacketClass, ...]
    packet: Packet
    witness: str
    before: Decided
    after: Decided
    can_be_sent: bool

    @property
    def sentence(self) -> str:
        """All of it but the witness, in one line."""
        words = f"{family_names(self.families)}: {self.packets}: {self.treatment}; by {self.by}"
        if self.depends:
            words = f"{words}; {self.depends}"
        return words

    @property
    def verdicts(self) -> tuple[Verdict, Verdict]:
        """What becomes of the witness before and after."""
        return self.before.verdict, self.after.verdict

    def document(self) -> dict[str, Any]:
        """It as JSON values."""
        return {
            "families": [family.value for family in self.families],
            "packets": self.packets,
            "sentence": self.sentence,
            "direction": self.classes[0].direction.value,
            "before": _side(self.before, self.classes[0].before.translations),
            "after": _side(self.after, self.classes[0].after.translations),
            "depends_on": [{"match": part.words, "at": str(part.origin or ""), "matches": matches}
                           for part, matches in self.classes[0].depends],
            "fields": list(map(_fields, self.classes)),
            "witness": self.witness,
        }  # fmt: skip


def _side(decided: Decided, translations: tuple[str, ...]) -> dict[str, Any]:
    return {"verdict": decided.verdict.value, "by": decided.words, "nat": list(translations)}


def _fields(each: PacketClass) -> dict[str, Any]:
    """The values of fields, as ranges of numbers."""
    values = {name.value: list(map(list, ranges)) for name, ranges in each.limits.items()}
    bits = [
        {"field": bits.field.value, "mask": bits.mask, "value": bits.value, "negated": bits.negated}
        for bits in each.bits
    ]
    return {"family": each.family.value, "values": values, "bits": bits}


def described(found: Differences, before: Model, after: Model) -> list[DescribedClass]:
    """The classes of one family, in words."""
    changed = {rule.rule.text for rule in changed_rules(before.rules, after.rules)}
    classes = [_described(each, before, after, changed) for each in found.classes]
    return sorted(classes, key=_order)


def _order(each: DescribedClass) -> tuple[int, str, str]:
    """The order of the classes: which one a solver finds first is up to it."""
    return list(Direction).index(each.classes[0].direction), each.packets, each.treatment


def _described(each: PacketClass, before: Model, after: Model, changed: Collection[str]) -> DescribedClass:
    packets = all_packets(before.known, each.direction)
    first, second = before.witness(packets, each.values), after.witness(packets, each.values)
    return DescribedClass(
        (each.family,),
        class_words(each, before.known),
        treatment_words(each.before, each.after),
        depends_words(each),
        _by(each, before, after, changed) or second.decided.words,
        (each,),
        second.packet,
        second.words,
        first.decided,
        second.decided,
        can_be_sent=not (each.depends or second.is_invalid),
    )


def _by(each: PacketClass, before: Model, after: Model, changed: Collection[str]) -> str:
    """The rule that makes the difference: one that only one of the two rulesets has; "" where that is a policy."""
    packets = all_packets(before.known, each.direction)
    for model, words in ((after, ""), (before, "the removal of ")):
        for met in rules_met(model.rules, packets, each.values, model.known):
            if met.rule is not None and met.rule.text in changed:
                return f"{words}{met.origin or met.words}"
    return ""


def of_both_families(found: Iterable[DescribedClass]) -> list[DescribedClass]:
    """The classes, those that are described in the same words for both families as one."""
    known: dict[tuple[str, ...], DescribedClass] = {}
    for each in found:
        key = each.packets, each.treatment, each.depends, each.by
        first = known.get(key)
        if first is None or each.families[0] in first.families:
            known[(*key, str(len(known))) if first else key] = each
        else:
            known[key] = replace(
                first, families=(*first.families, *each.families), classes=(*first.classes, *each.classes)
            )
    return list(known.values())


def lines_of(each: DescribedClass) -> list[str]:
    """The lines below the sentence: the witness, and what decides about it."""
    before, after = map(verdict_words, each.verdicts)
    return [
        f"witness: {each.witness}",
        f"before: {before} by {each.before.words}",
        f"now: {after} by {each.after.words}",
    ]
