"""Text on a terminal: lines that are folded to its width."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from fwguardd.ctl.terminal import Painter, folded
from fwguardd.ruleset.model import Finding, Origin

_words = st.lists(
    st.sampled_from(["INPUT", "is", "closed", "\x1b[1;31merror\x1b[0m:", "/etc/fwguard.d/10-web.rules:7"])
)
_blanks = st.sampled_from([" ", "  ", "    "])


@given(_words, _blanks, st.integers(12, 90), st.integers(0, 10))
def test_a_folded_line_keeps_its_words_and_fits(words: list[str], blank: str, width: int, indent: int) -> None:
    """Each line fits, colours not counted, but for a word that is longer; the words are the same, in order; what fits
    stays as it is."""
    line = blank.join(words)
    lines = folded(line, width, indent).split("\n")
    assert [word for each in lines for word in each.split()] == words
    for each in lines:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", each)
        assert len(plain) <= width or len(plain.split()) == 1
    assert all(each.startswith(" " * indent) for each in lines[1:])
    if len(lines) == 1:
        assert lines == [line]


def test_a_finding_is_one_line_for_programs_and_fits_a_terminal() -> None:
    """Editors and CI read a finding from its line; a person sees it folded, and a rule whole with its place below."""
    finding = Finding("no-target", "the rule has no target, so it only counts packets", Origin("/etc/a.rules", 7))
    assert Painter(colours=False).finding(finding).count("\n") == 0
    assert Painter(colours=False, width=60).finding(finding).split("\n") == [
        "/etc/a.rules:7: error: the rule has no target, so it only",
        "    counts packets [no-target]",
    ]
    rule = "+ -A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT"
    assert Painter(colours=False, width=60).with_tail(rule, "# /etc/a.rules:7") == f"{rule}\n    # /etc/a.rules:7"
    assert Painter(colours=False).with_tail(rule, "# /etc/a.rules:7") == f"{rule}  # /etc/a.rules:7"
