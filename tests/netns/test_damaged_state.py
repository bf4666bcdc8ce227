"""Bits of the files in the state directory flip, or files are cut: a start does what the newest intact file says.

When the daemon starts, the kernel holds the ruleset that is in force, as after a crash of the daemon alone. What a file
said that is damaged does not count as never said: nothing is opened, and a right kernel is not changed to an older
revision.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from tests.netns.crashing import A, B
from tests.scale import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.netns.fault_bench import FaultBench

pytestmark = pytest.mark.either_backend

DAMAGES = scaled(gate=1, long=60)
"""Bit flips of each file in each situation; a quarter as many truncations."""

BAD: Final = B | {"50-bad.rules": "-A INPUT -j NOWHERE\n"}


@dataclass(frozen=True, slots=True)
class Situation:
    """What the state directory and the rules directory hold, and which ruleset is in force, at a start.

    ``either`` names files: where one of them is damaged, nothing says any more which of two rulesets is wanted.
    """

    state: str
    files: dict[str, str]
    kernel: str
    wanted: str
    either: tuple[str, ...] = ()


SITUATIONS: Final = {
    "files good": Situation("B", B, "B", "B"),
    "files refused": Situation("B", BAD, "B", "B"),
    "rolled back": Situation("rolled back", B, "A", "A", ("held.json",)),
    "opened": Situation("open", A, "open", "open", ("held.json",)),
    "pending": Situation("pending", B, "B", "B", ("pending.json", "000002.json")),
    "expired": Situation("expired", B, "B", "A", ("pending.json",)),
}


@pytest.mark.long
def test_damaged_files(fault_bench: FaultBench, seed: int) -> None:
    """Whichever file is damaged, and however, in each situation."""
    names = fault_bench.its_share(SITUATIONS, seed)
    broken = [wrong for name in names for wrong in _broken_in(name, fault_bench, seed)]
    assert not broken, "\n".join(broken)


def _broken_in(name: str, bench: FaultBench, seed: int) -> Iterator[str]:
    situation, chance = SITUATIONS[name], random.Random(f"{seed} {bench.bench.backend} {name}")
    bench.load(situation.state, situation.files, situation.kernel)
    assert bench.name_of(bench.start().found["settled"]) == situation.wanted
    tried: Counter[str] = Counter()
    for file in bench.state_files(situation.state):
        for what, damage in _damages(chance):
            bench.load(situation.state, situation.files, situation.kernel)
            path = bench.bench.state / file
            path.write_bytes(damage(path.read_bytes()))
            yield from (f"{name}, {file}, {what}: {wrong}" for wrong in _wrong(bench, situation, path))
            tried[path.name] += 1
    print(f"{bench.bench.backend.value} {name}: {tried.total()} damaged files: {dict(tried)}")


def _damages(chance: random.Random) -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    for _ in range(DAMAGES):
        place = chance.random()

        def flip(data: bytes, place: float = place) -> bytes:
            bit = int(place * 8 * len(data))
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            return bytes(changed)

        yield f"bit {place:.4f}", flip
    for _ in range(max(1, DAMAGES // 4)):
        share = chance.random()

        def cut(data: bytes, share: float = share) -> bytes:
            return data[: int(share * len(data))]

        yield f"cut at {share:.4f}", cut


def _wrong(bench: FaultBench, situation: Situation, path: Path) -> Iterator[str]:
    """What is wrong after a start, another one, and the end of the time for a confirmation."""
    allowed = {situation.wanted}
    if path.name in situation.either:
        allowed |= {"A", "B"}
    for time in ("the first start", "the second start"):
        trial = bench.start()
        name, claim = bench.name_of(trial.found["settled"]), trial.claims["settled"]
        if name not in allowed:
            yield f"{name} is in force after {time}, {situation.wanted} was wanted: {claim.sentence}"
            return
        if claim.verified and claim.tables is not None and claim.tables != trial.found["settled"]:
            yield f"{claim.sentence!r} is not so after {time}: {name} is in force"
    if bench.end_of_time():
        name = bench.name_of(bench.start().found["settled"])
        if name != "A":
            yield f"{name} is in force after the time for the confirmation, A was wanted"
