"""What holds for every rule file: reading, composing and rendering."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.families import families_of_name, infer_families, may_imply_family
from fwguardd.ruleset.model import BOTH, BUILTIN_CHAINS, Candidate, Family, Finding, Ruleset, Table
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.save_format import Rendered, render
from fwguardd.ruleset.statements import Addition, Declaration, Reading, TableStart
from fwguardd.ruleset.tokenizer import UnterminatedQuoteError, quote, split_words, word_values
from tests.policies import with_stated_policies
from tests.property.rule_strategies import (
    IPV4_LITERALS,
    IPV4_WORDS,
    IPV6_LITERALS,
    IPV6_WORDS,
    free_texts,
    rule_files,
    rule_lines,
    rule_texts,
)
from tests.scale import examples

if TYPE_CHECKING:
    from collections.abc import Mapping

ONE_LINE = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=60)
LINE_LIKE = st.text(st.sampled_from("-AIPN4 \t\"\\#'*:[]INPUTjs10.,!=xé–"), max_size=40)
modest = settings(max_examples=examples(60))


def read_all(files: Mapping[str, bytes]) -> list[Reading]:
    """The readings of rule files by name."""
    return [read_rules(name, data, families_of_name(name)) for name, data in files.items()]


def composed(files: Mapping[str, bytes]) -> Candidate:
    """What the files say, if it is free of errors; other examples are passed over."""
    composition = compose(read_all(files))
    assume(not composition.findings.errors)
    return composition.candidate


# Reading


@modest
@given(st.one_of(st.binary(max_size=200), st.lists(rule_lines(), max_size=4).map(lambda ls: "\n".join(ls).encode())))
@example(b"-I WEB 5 -j ACCEPT")
@example(b"-A ACCEPT -j DROP")
@example(b"*\n:\n-\n[\n[1:2]\n-A\n-t\n-4\n-t nat\niptables\n-A x -- \\")
def test_reading_never_raises(data: bytes) -> None:
    """Whatever the bytes are, reading gives statements and findings, each with its place in the file."""
    reading = read_rules("x.rules", data)
    for statement in reading.statements:
        assert isinstance(statement, (Addition, Declaration, TableStart))
        assert statement.table in BUILTIN_CHAINS
        assert 1 <= statement.origin.line <= len(reading.lines)
        assert statement.families and statement.families <= BOTH
    for finding in reading.findings:
        assert isinstance(finding, Finding)
        assert finding.origin is not None and finding.origin.path == "x.rules"
        assert 1 <= finding.origin.line <= data.count(b"\n") + 1
        assert re.fullmatch(r"[a-z0-9-]+", finding.code)
        assert 0 <= finding.column <= len(finding.line_text)


@modest
@given(st.one_of(rule_lines(), LINE_LIKE.map(lambda text: f"-A INPUT {text}")))
@example('-A INPUT -m comment --comment "-M" -j ACCEPT')
@example('-A INPUT -i -m comment --comment "-M"')
@example('-A INPUT -s -j LOG --log-prefix "10.0.0.1" 10/8')
@example("-A ACCEPT -j DROP")
@example("-A -x -j DROP")
@example("-A INPUT -j DROP\x0b")
def test_the_fast_way_reads_what_the_slow_way_reads(line: str) -> None:
    """A tab at the end of a line means nothing, but only the slow way takes such a line: both must read the same."""
    assume("\n" not in line and not line.endswith("\\"))
    fast, slow = read_rules("x", line.encode()), read_rules("x", f"{line}\t".encode())
    assert fast.statements == slow.statements
    assert [finding.code for finding in fast.findings] == [finding.code for finding in slow.findings]


@modest
@given(
    rule_texts(),
    st.sampled_from(("-M/bin/sh", "--modprobe=x", "--mod", "-h", "--h", "-V", "-t nat", "-fM", "-4Mx", "-c 1 2")),
)
def test_a_trap_is_refused_wherever_it_stands_among_the_options(text: str, trap: str) -> None:
    """No place between two options hides an option that runs a program or ends the load with success."""
    assume(not text.endswith(("--comment", "--log-prefix")))
    for line in (
        f"-A INPUT {text} {trap}",
        f"-A INPUT {trap} {text}",
        f'-A INPUT -m comment --comment x "{trap.split(maxsplit=1)[0]}" {text}',
    ):
        reading = read_rules("x", line.encode())
        assert not reading.statements, line
        assert reading.findings[0].code in ("forbidden-option", "attached-value")


# Words


def split_by_hand(line: str) -> list[str] | None:
    """The words of a line by the book, one character at a time; None where a quote stays open."""
    words: list[str] = []
    current: str | None = None
    state = "outside"
    for character in line:
        if state == "escaped":
            current = (current or "") + character
            state = "inside"
        elif state == "inside" and character == "\\":
            state = "escaped"
        elif character == '"':
            current = current or ""
            if state == "inside":
                words.append(current)
                current = None
            state = "outside" if state == "inside" else "inside"
        elif state == "outside" and character in " \t":
            if current is not None:
                words.append(current)
            current = None
        else:
            current = (current or "") + character
    if state != "outside":
        return None
    return words if current is None else [*words, current]


@modest
@given(st.one_of(ONE_LINE, LINE_LIKE))
def test_words_are_cut_as_the_book_says(line: str) -> None:
    """The splitter agrees with one that was written apart from it, character by character."""
    wanted = split_by_hand(line)
    if wanted is None:
        with pytest.raises(UnterminatedQuoteError):
            split_words(line)
        return
    words = split_words(line)
    assert [word.value for word in words] == wanted == list(word_values(line))
    for word in words:
        assert split_by_hand(line[word.start : word.end]) == [word.value]


@modest
@given(st.lists(ONE_LINE, max_size=5))
def test_a_quoted_word_is_read_back(values: list[str]) -> None:
    """Whatever is quoted and written in one line with others comes back as it was."""
    assert list(word_values(" ".join(quote(value) for value in values))) == values


# Composing and rendering


@modest
@given(rule_files())
@example({"x.rules": b"-A FORWARD \\ -6"})
@example({"x.rules": b"-A INPUT -s -4 !"})
def test_render_read_compose_is_a_fixpoint(files: dict[str, bytes]) -> None:
    """A rendered ruleset, read and composed, is the same ruleset, and renders to the same text."""
    for family, ruleset in composed(files).rulesets.items():
        text = render(ruleset).text
        again = composed({f"x.v{family.number}.rules": text.encode()}).rulesets.get(family, Ruleset(family, {}))
        assert again == with_stated_policies(ruleset)
        assert render(again).text == text


@modest
@given(rule_files(), st.randoms())
def test_composing_does_not_depend_on_the_order_of_the_readings(files: dict[str, bytes], random: object) -> None:
    """The byte order of the names decides, not the order in which the files are given."""
    readings = read_all(files)
    shuffled = list(readings)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    here, there = compose(readings), compose(shuffled)
    assert here == there
    for family, ruleset in here.candidate.rulesets.items():
        assert render(ruleset) == render(there.candidate.rulesets[family])


def source_line(files: Mapping[str, bytes], rendered: Rendered, number: int) -> str | None:
    """The line that a line of rendered text came from."""
    origin = rendered.origin(number)
    return None if origin is None else files[origin.path].decode().split("\n")[origin.line - 1]


@modest
@given(rule_files())
def test_every_rendered_line_maps_to_the_line_it_came_from(files: dict[str, bytes]) -> None:
    """Each rule, and each chain that somebody declared, names the line of its file, and that line holds it."""
    for ruleset in composed(files).rulesets.values():
        rendered = render(ruleset)
        lines = rendered.text.splitlines()
        assert len(lines) == len(rendered.origins)
        for number, line in enumerate(lines, 1):
            source = source_line(files, rendered, number)
            if line.startswith("-A"):
                chain, rule = re.fullmatch(r"-A (\S+) ?(.*)", line).groups()  # type: ignore[union-attr]
                assert source is not None and chain in source and rule in source
            elif line.startswith(":") and line[1:].split()[0] not in BUILTIN_CHAINS[_table_at(lines, number)]:
                assert source is not None and line[1:].split()[0] in source
            elif not line.startswith(":"):
                assert source is None


def _table_at(lines: list[str], number: int) -> str:
    return next(line[1:] for line in reversed(lines[:number]) if line.startswith("*"))


@modest
@given(rule_files(), st.integers(1, 3))
def test_tags_and_small_commits_change_no_rule(files: dict[str, bytes], every: int) -> None:
    """The text for a rehearsal holds the same rules in the same order, however it is cut into commits."""
    for ruleset in composed(files).rulesets.values():
        plain = [line for line in render(ruleset).text.splitlines() if line.startswith("-A")]
        tagged = render(ruleset, tagged=True, commit_every=every)
        rules = [line for line in tagged.text.splitlines() if line.startswith("[")]
        assert rules == [f"[{number}:0] {line}" for number, line in enumerate(plain)]
        assert len(tagged.origins) == len(tagged.text.splitlines())


# Families


def families_of(text: str) -> frozenset[Family]:
    """The families that a rule of this text reaches when it stands in a file for both."""
    reading = read_rules("x.rules", f"-A INPUT {text}".encode())
    assert not reading.findings
    (families,) = {statement.families for statement in reading.statements}
    return families


@modest
@given(st.sampled_from(IPV4_LITERALS + IPV4_WORDS), rule_texts(), st.booleans())
def test_what_is_ipv4_never_reaches_ipv6(word: str, text: str, after: bool) -> None:  # noqa: FBT001
    """One IPv4 word among others keeps a rule out of IPv6."""
    assume(text)
    assert families_of(f"{text} {word}" if after else f"{word} {text}") == {Family.IPV4}


@modest
@given(st.sampled_from(IPV6_LITERALS + IPV6_WORDS), rule_texts(), st.booleans())
def test_what_is_ipv6_never_reaches_ipv4(word: str, text: str, after: bool) -> None:  # noqa: FBT001
    """One IPv6 word among others keeps a rule out of IPv4."""
    assume(text)
    assert families_of(f"{text} {word}" if after else f"{word} {text}") == {Family.IPV6}


@modest
@given(st.sampled_from(IPV4_LITERALS + IPV4_WORDS), st.sampled_from(IPV6_LITERALS + IPV6_WORDS), rule_texts())
def test_a_line_that_mixes_families_is_refused(ipv4: str, ipv6: str, text: str) -> None:
    """A rule that is both IPv4 and IPv6 is a finding, not a guess."""
    reading = read_rules("x.rules", f"-A INPUT {ipv4} {text} {ipv6}".encode())
    assert [finding.code for finding in reading.findings] == ["mixed-families"]
    assert not reading.statements


@modest
@given(st.sampled_from((None, *Family)).flatmap(lambda family: rule_texts(family=family)), free_texts())
@example("! -i eth0 -j ACCEPT", "-m comment --comment --proto")
def test_free_text_never_changes_the_families(text: str, prose: str) -> None:
    """A comment or a log prefix may say what it likes."""
    assert families_of(f"{text} {prose}".strip()) == families_of(text)
    assert families_of(f"{prose} {text}".strip()) == families_of(text)


@modest
@given(st.one_of(rule_texts(), ONE_LINE, LINE_LIKE))
def test_the_quick_look_errs_on_the_side_of_yes(text: str) -> None:
    """Where the quick look says that no word tells a family, none does."""
    if not may_imply_family(text):
        assert infer_families(text.split()) == BOTH


def test_an_empty_table_survives_the_round_trip() -> None:
    """A file that only names a table owns it, and its text says so."""
    ruleset = compose([read_rules("x.rules", b"*nat\nCOMMIT")]).candidate.rulesets[Family.IPV4]
    assert isinstance(ruleset.tables["nat"], Table)
    again = compose([read_rules("y.rules", render(ruleset).text.encode())]).candidate.rulesets[Family.IPV4]
    assert again == with_stated_policies(ruleset)
