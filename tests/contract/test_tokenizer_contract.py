"""Words are cut and quoted as the real iptables-restore and iptables-save do it, both backends."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fwguardd.ruleset.tokenizer import quote, word_values
from tests.scale import examples

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = pytest.mark.root

BACKENDS = ("nft", "legacy")
VALUES = st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs", "Cc"]), max_size=50)
RAW = [
    "plain",
    "two-words",
    '"two words"',
    'pre"fix ed"',
    '""',
    r'"say \"hi\" and \\ and \n"',
    r"back\slash",
    "it's",
    '"it\'s"',
    "-j",
    "--comment",
    '"-A"',
    '"tab\there"',
    "a#b",
    '"# 1"',
    '"größe – 日本"',
]


def comments_saved(backend: str, lock: Path, raw: Sequence[str]) -> list[str]:
    """Load a rule with each comment as it is written, and read what iptables-save prints for them."""
    rules = "".join(f"-A INPUT -m comment --comment {text}\n" for text in raw)
    script = f"iptables-{backend}-restore -w 5 && iptables-{backend}-save"
    finished = subprocess.run(
        ["unshare", "--net", "--", "/bin/sh", "-c", script],
        input=f"*filter\n{rules}COMMIT\n",
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XTABLES_LOCKFILE": str(lock)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return [word_values(line)[-1] for line in finished.stdout.split("\n") if line.startswith("-A")]


@pytest.mark.parametrize("backend", BACKENDS)
def test_words_are_cut_as_iptables_cuts_them(backend: str, tmp_path: Path) -> None:
    """What we take a word for is what the program takes it for: quotes, escapes, and quotes inside a word."""
    assert comments_saved(backend, tmp_path / "lock", RAW) == [word_values(raw)[0] for raw in RAW]


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=examples(15))
@given(values=st.lists(VALUES, min_size=1, max_size=40))
def test_what_is_quoted_arrives(backend: str, tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    """Any text without control characters, quoted by us, is the comment that the kernel then has."""
    lock = tmp_path_factory.getbasetemp() / "lock"
    assert comments_saved(backend, lock, [quote(value) for value in values]) == values
