"""What rules name and a rehearsal needs copies of: ipsets, accounting objects, timeout policies.

They belong to a network namespace, so a new one has none.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from fwguardd.kernel.ipsets import ANY_FAMILY, SetsUnreadableError, families_of_sets, types_of_sets
from fwguardd.kernel.named_objects import NamedObject, existing_objects
from fwguardd.ruleset.model import NO_FINDINGS, Candidate, Family, Finding, Findings, Origin, Severity
from fwguardd.ruleset.references import ObjectReference, named_objects, named_sets, set_matches
from fwguardd.ruleset.set_directions import too_few_directions
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ADDRESS_FAMILIES = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_PROTOCOL_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "dccp": 33, "gre": 47, "ipv6-icmp": 58, "sctp": 132}
_SHOWN_KINDS = {"nfacct": "nfacct object", "timeout": "timeout policy"}


@dataclass(frozen=True, slots=True)
class NamedByRules:
    """The ipsets (name to family) and the other objects that a rehearsal makes before it loads rules."""

    sets: Mapping[str, int]
    objects: Sequence[NamedObject] = ()


def objects_named(candidate: Candidate) -> tuple[NamedByRules, Findings]:
    """Those objects of this host that the rules refer to; and warnings where the host's objects cannot be read. A
    rehearsal then assumes that they exist and have the right family."""
    sets, of_sets = _sets(candidate)
    objects, of_objects = _objects(candidate)
    return NamedByRules(sets, objects), Findings((*of_sets, *_too_few_directions(candidate), *of_objects))


def _too_few_directions(candidate: Candidate) -> Sequence[Finding]:
    """Warnings about rules that name fewer directions than the entries of sets on this host have parts."""
    references = set_matches(candidate)
    if not references:
        return ()
    try:
        types = types_of_sets({reference.name for reference in references})
    except SetsUnreadableError:
        return ()  # That the sets cannot be read is reported already.
    return too_few_directions(references, types)


def _objects(candidate: Candidate) -> tuple[Sequence[NamedObject], Findings]:
    references = named_objects(candidate)
    if not references:
        return (), NO_FINDINGS
    try:
        return existing_objects(dict.fromkeys((one.kind, one.name) for one in references)), NO_FINDINGS
    except SetsUnreadableError as error:
        return _all_assumed(references), Findings(_unchecked_object(one, str(error)) for one in references)


def _all_assumed(references: Sequence[ObjectReference]) -> list[NamedObject]:
    """One object for each kind and name."""
    return list({(one.kind, one.name): _assumed(one) for one in references}.values())


def _assumed(reference: ObjectReference) -> NamedObject:
    """The object that the rule needs."""
    protocol = _PROTOCOL_NUMBERS.get(reference.protocol, 6)
    return NamedObject(reference.kind, reference.name, _ADDRESS_FAMILIES[reference.family], protocol)


def _unchecked_object(reference: ObjectReference, why: str) -> Finding:
    return _unchecked(f'{_SHOWN_KINDS[reference.kind]} "{reference.name}" exists', reference.origin, why)


def _by_place(named: Mapping[str, Origin]) -> dict[Origin, list[str]]:
    """The names of sets by the line that refers to them."""
    by_place: dict[Origin, list[str]] = {}
    for name, place in named.items():
        by_place.setdefault(place, []).append(name)
    return by_place


def _sets(candidate: Candidate) -> tuple[Mapping[str, int], Findings]:
    """The ipsets of this host that the rules refer to, with their families; and a warning for each line that refers to
    sets if sets cannot be read. A rehearsal then assumes that the sets exist and have the right family."""
    named = named_sets(candidate)
    if not named:
        return {}, NO_FINDINGS
    coming = {name: int(_ADDRESS_FAMILIES[family]) for name, family in candidate.sets.items() if name in named}
    try:
        return coming | families_of_sets(name for name in named if name not in coming), NO_FINDINGS
    except SetsUnreadableError as error:
        by_place = _by_place(named)
        warnings = Findings(_unchecked_sets(names, place, str(error)) for place, names in by_place.items())
        return dict.fromkeys(named, ANY_FAMILY) | coming, warnings


def _unchecked_sets(names: Sequence[str], place: Origin, why: str) -> Finding:
    sets = " and ".join(f'ipset "{name}"' for name in names)
    verb = "exist"
    if len(names) == 1:
        verb = "exists"
    return _unchecked(f"{sets} {verb}", place, why)


def _unchecked(what: str, place: Origin, why: str) -> Finding:
    message = f"could not check whether {what}: {why}"
    return Finding("unseen-set", message, place, Severity.WARNING, "check as root; a reload checks it in any case")
