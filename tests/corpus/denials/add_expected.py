"""Append to `expected.jsonl` what the parser says about shapes that have no expected result yet.

Run from the top of the tree: `python3 -m tests.corpus.denials.add_expected`, then read what it added, beside the
kernel's line: the file is the truth that the parser is held to, and nothing in it is ever overwritten.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from fwguardd.denials.fields import denial_fields
from fwguardd.denials.line_parser import LineReader
from fwguardd.denials.model import Denial, Meaning, Watched
from fwguardd.denials.sentences import sentence

HERE: Final = Path(__file__).parent


def main() -> None:
    """Append the missing lines, in the order of `kernel-lines.txt`."""
    watched = json.loads((HERE / "prefixes.json").read_text(encoding="ascii"))
    reader = LineReader(Watched(name, prefix, Meaning(meaning)) for name, prefix, meaning in watched)
    expected = HERE / "expected.jsonl"
    known = set()
    if expected.exists():
        known = {json.loads(line)["name"] for line in expected.read_text(encoding="utf-8").splitlines()}
    with expected.open("a", encoding="utf-8") as file:
        for line in (HERE / "kernel-lines.txt").read_text(encoding="ascii").splitlines():
            name, _, text = line.split("\t")
            denial = reader.read(text)
            if name in known:
                continue
            if not isinstance(denial, Denial):
                raise TypeError(f"{name}: {denial}")
            entry = {"name": name, "sentence": sentence(denial), "fields": denial_fields(denial)}
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
