"""Fuzzing the ruleset language: random rule files, and real ones with something broken in them.

    .venv/bin/python -m tests.property.fuzz_ruleset INPUTS [SEED]

Starts from the files of the golden directories, breaks them in many ways, and reads, composes and renders what comes
of it. Stops at the first input that breaks a promise and prints the smallest part of it that still does.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.model import Family, Findings, Ruleset
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.save_format import render
from tests.policies import with_stated_policies
from tests.waiting import must_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwguardd.ruleset.statements import Reading

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
TOKENS = (
    b'" \\ # ! - -- -A -I -N -P -t -4 -6 -M -h -c * : COMMIT *filter *nat *x :INPUT :WEB ACCEPT DROP - [0:0] [1:2] [ '
    b"INPUT WEB PREROUTING iptables ip6tables --comment --log-prefix -m comment -i -s -d -p icmp 10.0.0.1 10/8 ::1 "
    b"2001:db8::1/64 [::1]:80 , 0 1 99 999999999999 --modprobe=x -j -jX -f -f4 fwguard: allow"
).split(b" ")
BYTES = (
    b"\n",
    b"\t",
    b" ",
    b'"',
    b"\\",
    b"#",
    b"\0",
    b"\r",
    b"\xff",
    b"\xc2\xa0",
    "–".encode(),
    "\u202e".encode(),
    b"",
)


class BrokenPromiseError(Exception):
    """An input for which something does not hold that holds for every input."""


@dataclass(slots=True)
class Figures:
    """The number of inputs, and the findings for them."""

    inputs: int = 0
    taken: int = 0
    codes: Counter[str] = field(default_factory=Counter)


def examine(data: bytes) -> Findings:
    """Read, compose and render one input; its findings. Raises whatever the code raises, or BrokenPromiseError."""
    reading = read_rules("x.rules", data)
    composition = compose([reading])
    for finding in composition.findings:
        if finding.origin is None or not 0 <= finding.origin.line <= data.count(b"\n") + 1:
            raise BrokenPromiseError(f"no place for {finding}")
        str(finding)
    _both_ways_read_the_same(reading, data)
    if not composition.findings.errors:
        for family, ruleset in composition.candidate.rulesets.items():
            _comes_back(family, ruleset)
    return composition.findings


def _comes_back(family: Family, ruleset: Ruleset) -> None:
    text = render(ruleset).text
    if not text:
        return
    again = compose([read_rules(f"x.v{family.number}.rules", text.encode(), frozenset({family}))])
    if again.findings.errors:
        raise BrokenPromiseError(f"its own text is refused: {again.findings[0]}")
    if again.candidate.rulesets.get(family, Ruleset(family, {})) != with_stated_policies(ruleset):
        raise BrokenPromiseError("its own text is read as something else")


def _both_ways_read_the_same(reading: Reading, data: bytes) -> None:
    """A tab at the end of each line sends all of them the slow way."""
    if any(len(line) > 4000 or line.endswith("\\") for line in reading.lines):
        return
    slow = read_rules("x.rules", b"\t\n".join(data.split(b"\n")))
    if slow.statements != reading.statements:
        raise BrokenPromiseError("the fast way and the slow way differ")


def seeds() -> list[bytes]:
    """The rule files of all golden directories."""
    return [path.read_bytes() for path in sorted(GOLDEN.glob("*/in/*.rules"))]


def mutated(chance: random.Random, corpus: list[bytes]) -> bytes:
    """A file made of real ones, with something broken in it."""
    lines = [line for _ in range(chance.randint(1, 3)) for line in chance.choice(corpus).split(b"\n")]
    if chance.random() < 0.3:
        chance.shuffle(lines)
    data = bytearray(b"\n".join(lines[: chance.randint(1, 40)]))
    for _ in range(chance.randint(0, 6)):
        place = chance.randint(0, len(data))
        kind = chance.random()
        if kind < 0.4:
            data[place:place] = chance.choice(TOKENS) + chance.choice((b"", b" "))
        elif kind < 0.6:
            data[place:place] = chance.choice(BYTES)
        elif kind < 0.75:
            del data[place : place + chance.randint(1, 8)]
        elif kind < 0.85:
            end = place + chance.randint(1, 30)
            data[place:place] = data[place:end] * chance.randint(1, 3)
        elif kind < 0.95:
            data[place:place] = b" ".join(chance.choices(TOKENS, k=chance.randint(1, 8)))
        else:
            data[place : place + 1] = chance.randbytes(1)
    return bytes(data)


def fuzz(inputs: int, seed: int) -> Figures:
    """Examine so many inputs. Raises BrokenPromiseError with the smallest input that was found."""
    chance, corpus, figures = random.Random(seed), seeds(), Figures()
    for _ in range(inputs):
        data = mutated(chance, corpus)
        try:
            with must_end("one input"):
                findings = examine(data)
        except Exception as error:
            raise BrokenPromiseError(f"{error!r} for {smallest(data, breaks)!r}") from error
        figures.inputs += 1
        figures.taken += not findings.errors
        figures.codes.update({finding.code for finding in findings})
    return figures


def smallest(data: bytes, still_breaks: Callable[[bytes], bool]) -> bytes:
    """A small part of an input that still breaks: pieces are taken out as long as what is left does."""
    size = len(data) // 2
    while size:
        place = 0
        while place < len(data):
            shorter = data[:place] + data[place + size :]
            if still_breaks(shorter):
                data = shorter
            else:
                place += size
        size //= 2
    return data


def breaks(data: bytes) -> bool:
    """Whether a promise is broken for this input."""
    try:
        examine(data)
    except Exception:  # noqa: BLE001 - any exception is what is being looked for.
        return True
    return False


def main() -> int:
    """Fuzz with as many inputs as the command line names."""
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns()
    print(f"seed {seed}", flush=True)
    figures = fuzz(int(sys.argv[1]), seed)
    print(f"{figures.inputs} inputs, {figures.taken} taken")
    print(", ".join(f"{code} {count}" for code, count in figures.codes.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
