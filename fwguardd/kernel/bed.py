"""Beds: a ruleset in a rehearsal namespace that has the network of a host, and packets sent through it.

The namespace is one of those that rehearsals use, however it was made. Nothing is sent out of it, nothing of it is in
the kernel log of the host, and it ends with the bed.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.kernel.objects_of_rules import objects_named
from fwguardd.kernel.rehearsal import steps_to_load
from fwguardd.packets.bed_rules import bed_rules
from fwguardd.packets.documents import packet_document
from fwguardd.packets.traces import read_journey
from fwguardd.ruleset.model import Candidate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fwguardd.kernel.namespaces import NamespacePool, ScratchNamespace
    from fwguardd.packets.bed_rules import BedRules
    from fwguardd.packets.host import Host
    from fwguardd.packets.model import Journey, Packet, Undecided
    from fwguardd.ruleset.model import Family, Ruleset

PACKETS_PER_REQUEST: Final = 500
"""Packets that are sent to the worker at once."""


class LoadedBed:
    """A bed with a ruleset in it (`fwguardd.packets.bed.Bed`). ``left_out`` says, for messages, what of the host's
    network the namespace lacks."""

    def __init__(self, scratch: ScratchNamespace, rules: Mapping[Family, BedRules], left_out: Sequence[str]) -> None:
        self._scratch = scratch
        self._rules = rules
        self.left_out = tuple(left_out)

    def send(self, packets: Sequence[Packet]) -> list[Journey | Undecided]:
        """What the kernel did with each packet, in the order of the packets. Raises NamespaceError."""
        journeys: list[Journey | Undecided] = []
        for start in range(0, len(packets), PACKETS_PER_REQUEST):
            part = packets[start : start + PACKETS_PER_REQUEST]
            self._scratch.request({"packets": [packet_document(packet) for packet in part]})
            for packet, result in zip(part, self._scratch.answer()["journeys"], strict=True):
                journeys.append(read_journey(packet, result, self._rules.get(packet.family)))
        return journeys


@dataclass(frozen=True, slots=True)
class Beds:
    """Beds with one backend, in namespaces from one pool."""

    backend: str
    pool: NamespacePool

    @contextlib.contextmanager
    def prove(self, rulesets: Mapping[Family, Ruleset], host: Host) -> Iterator[LoadedBed]:
        """A bed with these rulesets: those of a `Candidate`, of a `fwguardd.ruleset.canonical.Canonical`, or live ones.

        Raises NamespaceError where there can be no bed, or the rules do not load.
        """
        named, _ = objects_named(Candidate(rulesets))
        rules = {family: bed_rules(ruleset) for family, ruleset in rulesets.items()}
        with self.pool.acquire() as scratch:
            request: dict[str, Any] = {"bed": host.document(), "backend": self.backend}
            request |= {"sets": dict(named.sets), "objects": list(named.objects), "loads": []}
            for family, one in rules.items():
                steps = steps_to_load(self.backend, scratch, one.loaded)
                request["loads"].append({"family": family.number, "steps": steps})
            scratch.request(request)
            answer = scratch.answer()
            _raise_if_refused(answer["results"])
            yield LoadedBed(scratch, rules, answer["left_out"])


def _raise_if_refused(results: Sequence[Mapping[str, Any]]) -> None:
    for result in results:
        if result["code"] != 0:
            raise NamespaceError(
                f"the rules do not load where packets are sent through them: {result['stderr'].strip()}"
            )
