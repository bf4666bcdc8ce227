"""How long a set file takes from its bytes to the kernel, beside ``ipset restore`` of the same entries alone."""

from __future__ import annotations

import random
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.set_copies import SetCopies
from fwguardd.enforce.sets import Sets
from fwguardd.ruleset.model import Family
from fwguardd.ruleset.set_files import SetFile
from fwguardd.ruleset.set_scripts import add_lines, create_line
from tests.bench.conftest import MEASURING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.bench.conftest import Recorder

SIZES = [10, 50_000, *([1_000_000] * MEASURING)]


def _addresses(count: int) -> list[str]:
    numbers = random.Random(count).sample(range(1 << 24, 224 << 24), count)
    return [".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0)) for number in numbers]


def _restore(addresses: list[str]) -> float:
    """Seconds of ipset(8) for these entries."""
    file = SetFile("plain", {Family.IPV4: addresses, Family.IPV6: []})
    script = create_line(file, Family.IPV4, "plain") + "\n" + add_lines(file, Family.IPV4, "plain")
    begun = time.monotonic()
    subprocess.run(["ipset", "restore"], input=script, text=True, check=True)
    took = time.monotonic() - begun
    subprocess.run(["ipset", "destroy", "plain"], check=True)
    return took


@pytest.mark.parametrize("count", SIZES)
def test_the_speed_of_set_files(count: int, rounds: Callable[[int], int], record: Recorder, tmp_path: Path) -> None:
    """A first load, a swap, and a comparison that finds nothing."""
    rules, addresses = tmp_path / "rules", _addresses(count)
    rules.mkdir(mode=0o755)
    (rules / "many.set").write_text("\n".join(addresses) + "\n")
    alone: list[float] = []
    loads: list[float] = []
    swaps: list[float] = []
    for _ in range(rounds(5)):
        alone.append(_restore(addresses))
        sets = Sets(rules, SetCopies(tmp_path / "state", lambda _name, _call: None), lambda *_args, **_fields: None)
        begun = time.monotonic()
        sets.update(repair=True)
        loads.append(time.monotonic() - begun)
        addresses[0] = f"1.2.3.{len(alone)}"
        (rules / "many.set").write_text("\n".join(addresses) + "\n")
        begun = time.monotonic()
        sets.update(repair=True)
        swaps.append(time.monotonic() - begun)
        subprocess.run(["ipset", "destroy"], check=True)
    record(f"ipset restore alone, {count:,} entries", "s", alone)
    record(f"set file, first load, {count:,} entries", "s", loads)
    record(f"set file, swap, {count:,} entries", "s", swaps)
