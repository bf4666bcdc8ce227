"""Origins of the rules that a rehearsal printed: whose line made which rule."""

from __future__ import annotations

from fwguardd.ruleset.model import Chain, Counters, Family, Origin, Rule, Ruleset, Table
from fwguardd.ruleset.save_format import read_rehearsed, read_saved, render, with_origins


def ruleset(*rules: Rule, policy: str = "ACCEPT") -> Ruleset:
    """One chain of one table."""
    return Ruleset(Family.IPV4, {"filter": Table("filter", {"INPUT": Chain("INPUT", policy, rules)})})


def source(*texts: str) -> Ruleset:
    """Rules as written, from line 1 on."""
    return ruleset(*(Rule(text, Origin("a.rules", line)) for line, text in enumerate(texts, 1)))


def lines(saved: Ruleset, written: Ruleset) -> list[int | None]:
    """The line of each saved rule."""
    rules = with_origins(saved, written).tables["filter"].chains["INPUT"].rules
    return [rule.origin.line if rule.origin else None for rule in rules]


def tagged(*tags: int) -> Ruleset:
    """Rules as saved, with their tags."""
    return ruleset(*(Rule(f"rule {tag}", None, Counters(tag, 0)) for tag in tags))


def test_as_many_rules_as_lines_is_one_for_one() -> None:
    """The usual case needs no tags."""
    assert lines(tagged(0, 0), source("-s host.example", "-j DROP")) == [1, 2]


def test_tags_tell_which_line_became_several_rules() -> None:
    """Also behind a name that only a resolver can count."""
    assert lines(tagged(0, 0, 1, 2, 2), source("-s 10.0.0.1,10.0.0.2", "-j A", "-s host.example")) == [1, 1, 2, 3, 3]


def test_lost_tags_are_replaced_by_counting() -> None:
    """A list of sources times a list of destinations; behind a host name nothing is guessed."""
    written = source("-s ::1,::2 -d ::3,::4", "-j A", "-s host.example", "-j B")
    assert lines(tagged(*[0] * 8), written) == [1, 1, 1, 1, 2, None, None, None]


def test_tags_are_counted_over_all_tables() -> None:
    """The numbers of the second table go on where those of the first end; other tables of the kernel are left out."""
    first = Table(
        "nat", {"OUTPUT": Chain("OUTPUT", "ACCEPT", (Rule("-j A", Origin("n", 1)), Rule("-j B", Origin("n", 2))))}
    )
    second = source("-s 10.0.0.1,10.0.0.2", "-j C").tables["filter"]
    written = Ruleset(Family.IPV4, {"nat": first, "filter": second})
    saved = Ruleset(
        Family.IPV4, {"filter": tagged(2, 2, 3).tables["filter"], "nat": first, "mangle": Table("mangle", {})}
    )
    result = with_origins(saved, written)
    assert list(result.tables) == ["nat", "filter"]
    assert [str(rule.origin) for rule in result.tables["filter"].chains["INPUT"].rules] == [
        "a.rules:1",
        "a.rules:1",
        "a.rules:2",
    ]


def test_the_saved_text_and_policy_count() -> None:
    """What the kernel made of a rule is the rule from now on; only its origin is the author's."""
    result = with_origins(ruleset(Rule("-s 10.0.0.1/32"), policy="DROP"), source("-s 10.0.0.1"))
    chain = result.tables["filter"].chains["INPUT"]
    assert (chain.policy, chain.rules[0].text) == ("DROP", "-s 10.0.0.1/32")


def test_a_rehearsal_is_read_as_its_tags_say() -> None:
    """Also where they are not needed, and so not read: then a text that is saved as it was written is held once."""
    written = source("-s 10.0.0.1/32 -j A", "-s 10.0.0.1,10.0.0.2 -j A", "-s host.example", "-j B")
    text = render(written, tagged=True).text
    several = text.replace("10.0.0.1,10.0.0.2 -j A", "10.0.0.1/32 -j A\n[1:0] -A INPUT -s 10.0.0.2/32 -j A")
    for saved in (text, several):
        read = read_rehearsed(written, saved)
        expected = with_origins(read_saved(Family.IPV4, saved).shown, written)
        assert read == expected
        rules, wanted = (each.tables["filter"].chains["INPUT"].rules for each in (read, expected))
        assert [rule.origin for rule in rules] == [rule.origin for rule in wanted]
        assert not any(rule.counters.packets for rule in rules)
        assert rules[0].text is written.tables["filter"].chains["INPUT"].rules[0].text
