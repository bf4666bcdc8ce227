"""Fuzzing the readers of denials: kernel lines with something broken in them, and copied packets likewise.

    .venv/bin/python -m tests.property.fuzz_denials INPUTS [SEED]

Starts from the lines and the packets of the corpus. Stops at the first input that breaks a promise, and prints it:
reading never raises; what is reported fits one printable line; a journal entry has just the fields that it was made of;
the quick look at a line finds what reading finds.
"""

from __future__ import annotations

import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fwguardd.denials.aggregation import flow_of
from fwguardd.denials.fields import denial_fields
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Denial, Meaning, Unparsed, Watched
from fwguardd.denials.packets import PacketReader
from fwguardd.denials.sentences import sentence
from fwguardd.sinks.journal import encode_entry
from tests.corpus.denials.copied import copied
from tests.corpus.denials.packets import icmp_packets, ipv4_packets, ipv6_packets
from tests.waiting import must_end

CORPUS: Final = Path(__file__).resolve().parents[1] / "corpus" / "denials"
LINES: Final = sorted({line.split("\t")[2] for line in (CORPUS / "kernel-lines.txt").read_text("ascii").splitlines()})
WATCHED: Final = [
    Watched(name, prefix, Meaning(meaning))
    for name, prefix, meaning in json.loads((CORPUS / "prefixes.json").read_text("ascii"))
]
PACKETS: Final = [*ipv4_packets().values(), *icmp_packets().values(), *ipv6_packets().values()]
WORDS: Final = sorted({f"{word} " for line in LINES for word in line.split()} | {"\n", "\\x0a", "[", "] ", "\0", "é"})
NUMBERS: Final = ("0", "-1", "65535", "65536", "4294967296", "00", "0x", "::", "1.2.3.4.5", "٣")


class BrokenPromiseError(Exception):
    """An input for which a promise does not hold."""


@dataclass
class Figures:
    """What was met."""

    inputs: int = 0
    denials: int = 0
    plain: int = 0


READER: Final = LineReader(WATCHED)
PACKET_READER: Final = PacketReader(WATCHED, lambda _: b"eth0")


def examine_line(text: str, figures: Figures) -> None:
    """Read a text in both ways, and tell what it is. Raises whatever the code raises, or BrokenPromiseError."""
    read, seen = READER.read(text), READER.read_flow(text)
    if seen is not None:
        figures.plain += 1
        if not isinstance(read, Denial) or flow_of(read) != seen:
            raise BrokenPromiseError("the quick look finds what reading does not")
    if isinstance(read, Denial):
        figures.denials += 1
        examine_denial(read)
    elif isinstance(read, Unparsed) and not 0 <= read.position <= len(read.text):
        raise BrokenPromiseError("no place for what is not understood")


def examine_denial(denial: Denial) -> None:
    """Tell a denial to a person and to the journal."""
    if not sentence(denial).isprintable():
        raise BrokenPromiseError("a sentence that no terminal should see")
    shown = {"message": sentence(denial), "line": denial.text, **denial_fields(denial)}
    each = [single for value in shown.values() for single in (value if isinstance(value, tuple) else (value,))]
    if fields_of(encode_entry(shown)) != sum(single != "" for single in each):
        raise BrokenPromiseError("the journal gets other fields than were emitted")


def fields_of(entry: bytes) -> int:
    """The number of fields in an entry of journald's native protocol."""
    count = place = 0
    while place < len(entry):
        end = entry.index(b"\n", place)
        if b"=" not in entry[place:end]:
            end += 9 + int.from_bytes(entry[end + 1 : end + 9], "little")
        count += 1
        place = end + 1
    return count


def mutated_line(chance: random.Random) -> str:
    """A kernel line with something broken in it."""
    text = chance.choice(LINES)
    for _ in range(chance.choice((0, 1, 1, 2, 3, 5))):
        place = chance.randint(0, len(text))
        end = place + chance.randint(0, 12)
        piece = chance.choice((chance.choice(WORDS), chance.choice(NUMBERS), chr(chance.randint(0, 300)), ""))
        text = text[:place] + piece + text[chance.choice((place, end)) :]
    if chance.random() < 0.2:
        words = text.split(" ")
        chance.shuffle(words)
        text = chance.choice(WATCHED).prefix + " ".join(words)
    return text[: chance.choice((len(text), chance.randint(0, len(text))))] if chance.random() < 0.2 else text


def mutated_packet(chance: random.Random) -> bytes:
    """A packet with something broken in it."""
    data = bytearray(chance.choice(PACKETS))
    for _ in range(chance.randint(0, 6)):
        place = chance.randint(0, len(data))
        data[place : place + chance.randint(0, 4)] = chance.randbytes(chance.randint(0, 4))
    return bytes(data)


def fuzz(inputs: int, seed: int) -> Figures:
    """Examine so many inputs. Raises BrokenPromiseError with the input that was found."""
    chance, figures = random.Random(seed), Figures()
    for _ in range(inputs):
        text, packet = mutated_line(chance), mutated_packet(chance)
        family, prefix = chance.choice((2, 10, chance.randint(0, 255))), chance.choice(WATCHED).prefix.encode()
        try:
            with must_end("one input"):
                examine_line(text, figures)
                denial = PACKET_READER.read(copied(packet, prefix=prefix, family=family, hook=chance.randint(0, 5)))
                if isinstance(denial, Denial):
                    examine_denial(denial)
        except Exception as error:
            raise BrokenPromiseError(f"{error!r} for {text!r} or {packet!r} of family {family}") from error
        figures.inputs += 2
    return figures


def main() -> int:
    """Fuzz with as many inputs as the command line names."""
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns()
    print(f"seed {seed}", flush=True)
    figures = fuzz(int(sys.argv[1]), seed)
    print(f"{figures.inputs} inputs; of the lines {figures.denials} denials, {figures.plain} plain")
    return 0


if __name__ == "__main__":
    sys.exit(main())
