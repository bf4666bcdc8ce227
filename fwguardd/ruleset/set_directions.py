"""Rules that name fewer directions than the entries of their set have parts: no packet matches them.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.ruleset.model import Finding, Severity
from fwguardd.ruleset.references import set_matches
from fwguardd.ruleset.set_files import kernel_name
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fwguardd.ruleset.model import Candidate
    from fwguardd.ruleset.references import SetReference
    from fwguardd.ruleset.set_files import SetFile


def too_few_directions(references: Iterable[SetReference], types: Mapping[str, str]) -> list[Finding]:
    """A warning for each such rule (ip_set_test() in net/netfilter/ipset/ip_set_core.c). ``types`` are those of the
    sets, such as hash:ip,port, by their names."""
    findings: list[Finding] = []
    for reference in references:
        kind = types.get(reference.name, "")
        if reference.directions <= kind.count(","):
            findings.append(_too_few(reference, kind))
    return findings


def _too_few(reference: SetReference, kind: str) -> Finding:
    named, parts = counted(reference.directions, "direction"), 1 + kind.count(",")
    message = f'no packet matches: the ipset "{reference.name}" ({kind}) has {parts} parts, and the rule has {named}'
    directions = ",".join(["src"] * parts)
    hint = f"write --match-set {reference.name} {directions}, with src or dst for each part"
    place = reference.origin
    return Finding("set-directions", message, place, Severity.WARNING, hint, family=reference.family)


def directions_for_files(candidate: Candidate, files: Sequence[SetFile]) -> list[Finding]:
    """The same for sets of set files, which need not be on this host yet."""
    if not files:
        return []
    types: dict[str, str] = {}
    for file in files:
        for family in file.entries:
            types[kernel_name(file.name, family)] = file.kind
    return too_few_directions(set_matches(candidate), types)
