"""Composing: many files, one ruleset for each family."""

from __future__ import annotations

from fwguardd.ruleset.compose import Composition, compose
from fwguardd.ruleset.families import families_of_name
from fwguardd.ruleset.model import BUILTIN_CHAINS, NOT_STATED, Chain, Family, Origin, Rule, Severity
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.rule_runs import RuleRuns
from fwguardd.ruleset.statements import Addition, Appended, Declaration


def composed(**files: str) -> Composition:
    """Files by name, composed; an underscore stands for the dot of the family."""
    return compose(
        read_rules(
            f"{name}.rules".replace("_", "."), text.encode(), families_of_name(f"{name}.rules".replace("_", "."))
        )
        for name, text in files.items()
    )


def codes(composition: Composition) -> list[str]:
    """The codes of all findings, in order."""
    return [finding.code for finding in composition.findings]


def texts(composition: Composition, chain: str, table: str = "filter", family: Family = Family.IPV4) -> list[str]:
    """The rules of one chain."""
    return [rule.text for rule in composition.candidate.rulesets[family].tables[table].chains[chain].rules]


def rule(composition: Composition, chain: str, number: int, family: Family) -> Rule:
    """One rule of a chain."""
    return composition.candidate.rulesets[family].tables["filter"].chains[chain].rules[number]


def test_files_are_taken_in_byte_order_of_their_names() -> None:
    """Not in the order given, and not as a dictionary sorts."""
    composition = composed(b="-A INPUT -i b", a="-A INPUT -i a", B="-A INPUT -i B")
    assert texts(composition, "INPUT") == ["-i B", "-i a", "-i b"]


def test_an_insertion_goes_to_its_place_among_what_stands_so_far() -> None:
    """-I without a number goes to the head, with one to that place, one behind the end at most."""
    composition = composed(a="-A INPUT -i a\n-I INPUT -i b\n-I INPUT 3 -i c\n-I INPUT 2 -i d")
    assert texts(composition, "INPUT") == ["-i b", "-i d", "-i a", "-i c"]
    assert codes(composed(a="-I INPUT 2 -i a")) == ["bad-position"]


def test_a_refused_insertion_into_an_undeclared_chain_is_a_finding_and_no_crash() -> None:
    """The chain has no rule then that an origin could be taken from."""
    assert codes(composed(a="-I WEB 5 -j ACCEPT")) == ["bad-position"]


def test_every_built_in_chain_of_a_table_is_there() -> None:
    """A table that a file names is owned whole, but for the policies that no file states: those of the kernel stay."""
    table = composed(a="-t mangle -A OUTPUT -j MARK --set-mark 1").candidate.rulesets[Family.IPV4].tables["mangle"]
    assert tuple(table.chains) == BUILTIN_CHAINS["mangle"]
    assert {chain.policy for chain in table.chains.values()} == {NOT_STATED}


def test_tables_that_no_file_names_are_absent() -> None:
    """Neither is one that is named for the other family only."""
    rulesets = composed(a="-4 -t nat -A OUTPUT -j ACCEPT\n-6 -A INPUT").candidate.rulesets
    assert list(rulesets[Family.IPV4].tables) == ["nat"]
    assert list(rulesets[Family.IPV6].tables) == ["filter"]


def test_a_policy_said_twice_names_the_first_place() -> None:
    """The same is a warning, another an error; in each family apart."""
    same = composed(a="-P INPUT DROP", b=":INPUT DROP [0:0]")
    assert [(f.code, f.severity, f.origin) for f in same.findings] == [
        ("policy-twice", Severity.WARNING, Origin("b.rules", 1))
    ]
    assert "a.rules:1" in same.findings[0].message
    other = composed(a="-P INPUT DROP", b="\n:INPUT ACCEPT [0:0]")
    assert [(f.code, f.origin) for f in other.findings] == [("policy-conflict", Origin("b.rules", 2))]
    assert "a.rules:1" in other.findings[0].message
    assert codes(composed(a="-4 -P INPUT DROP\n-6 -P INPUT ACCEPT\n:INPUT - [0:0]")) == []


def test_a_chain_may_be_declared_anywhere_and_more_than_once() -> None:
    """Before its rules, after them, in another file, and again; its rules keep the order of the files."""
    composition = composed(a="-A web -i a\n:web - [0:0]", b="-N web\n-A web -i b")
    assert codes(composition) == []
    chain = composition.candidate.rulesets[Family.IPV6].tables["filter"].chains["web"]
    assert (chain.origin, [rule.text for rule in chain.rules]) == (Origin("a.rules", 2), ["-i a", "-i b"])
    assert chain.policy is None


def test_an_undeclared_chain_is_one_finding_at_its_first_rule() -> None:
    """With the line; of both families where it holds for both, else of the one."""
    (finding,) = composed(b="-A web -i b", a="\n-A web -i a").findings
    assert (finding.code, finding.origin, finding.line_text) == (
        "undeclared-chain",
        Origin("a.rules", 2),
        "-A web -i a",
    )
    assert finding.family is None
    (finding,) = composed(a="-6 -N web\n-A web -i a").findings
    assert finding.family is Family.IPV4


def test_what_to_do_about_an_undeclared_chain_can_be_done() -> None:
    """The hint names the chain that was meant, the table that has it, or a line that declares it for who lacks it."""
    cases = {
        "-A web": 'declare it: "-N web"',
        "-t nat -A web": 'declare it: "-t nat -N web"',
        "-6 -N web\n-A web": 'declare it: "-4 -N web"',
        "-A input": 'write INPUT if you mean that, or declare the chain: "-N input"',
        "-N blocked\n-A bloked": 'write blocked if you mean that, or declare the chain: "-N bloked"',
        "-A POSTROUTING": 'it is built into mangle, nat: write *nat on a line above, or "-t nat" before -A',
        "*nat\n-A FORWARD": "it is built into mangle, filter, security: "
        'write *filter on a line above, or "-t filter" before -A',
        "*raw\n-A INPUT": "it is built into mangle, nat, filter, security: "
        'write *filter on a line above, or "-t filter" before -A',
    }
    for text, hint in cases.items():
        (finding,) = composed(a=text).findings
        assert (finding.code, finding.hint) == ("undeclared-chain", hint)


def test_a_chain_whose_declaration_was_refused_is_not_called_undeclared() -> None:
    """One mistake is one finding: a refused line may declare the chain, or a part of the files was not read."""
    assert codes(composed(a="N web\n-A web -i a\n-A other")) == ["not-a-rule", "undeclared-chain"]
    assert codes(composed(a="$IPT -N web\n$IPT -N more\n-A more -i a")) == ["other-language"]
    assert codes(composed(a="-N web extra\n-A web -i a")) == ["trailing-words"]
    assert codes(composed(a="*fitler\n:web - [0:0]\nCOMMIT\n*filter\n-A web")) == ["unknown-table"]
    assert codes(composed(a=":web - [0:0]\r\n", b="-A web")) == ["carriage-return"]


def test_rules_in_the_wrong_table_do_not_come_to_the_kernel() -> None:
    """A finding says so. If the kernel refused them too, one mistake would be two findings."""
    composition = composed(a="-A PREROUTING -j REDIRECT")
    assert texts(composition, "PREROUTING") == []


def test_a_chain_is_of_one_table() -> None:
    """A chain that another table has is undeclared here, also a built-in one."""
    assert codes(composed(a="*nat\n-N web\n*filter\n-A web\n-A PREROUTING")) == ["undeclared-chain"] * 2


def test_no_file_and_nothing_but_comments_are_never_an_empty_firewall() -> None:
    """Both are findings, and nothing would be loaded."""
    for composition in (composed(), composed(a="# nothing\n", b="")):
        assert codes(composition) == ["no-rules"]
        assert not composition.candidate.rulesets
    assert composed(a="# nothing").findings[0].origin == Origin("a.rules", 0)


def test_a_file_of_errors_is_not_reported_as_empty() -> None:
    """The faults say it all."""
    assert codes(composed(a="nonsense")) == ["not-a-rule"]


def test_rules_keep_origin_and_counters() -> None:
    """Neither takes part in a comparison."""
    composition = composed(a="\n[5:300] -A INPUT -j ACCEPT\n:FORWARD DROP [7:8]")
    filter_table = composition.candidate.rulesets[Family.IPV4].tables["filter"]
    (rule,) = filter_table.chains["INPUT"].rules
    assert (rule.origin, rule.counters.packets) == (Origin("a.rules", 2), 5)
    assert filter_table.chains["FORWARD"].counters.bytes == 8
    assert filter_table.chains["FORWARD"] == Chain("FORWARD", "DROP")


def test_findings_stand_in_order_of_place() -> None:
    """By path, then by line, whichever step found them."""
    composition = composed(b="nonsense", a="-A web\nnonsense\n-A other")
    assert [str(finding.origin) for finding in composition.findings] == [
        "a.rules:1",
        "a.rules:2",
        "a.rules:3",
        "b.rules:1",
    ]


def test_a_rule_is_one_object_from_the_reading_on() -> None:
    """For each family, and in what was read: rules that are appended one after the other are in memory once, and a
    statement for each is made for those who ask."""
    reading = read_rules("a.rules", b"-A INPUT -i a\n-A INPUT -i b\n:c -\n-A c -p icmp\n-I INPUT -i d\n-A INPUT -i e\n")
    assert [type(part) for part in reading.said] == [Appended, Declaration, Appended, Addition, Appended]
    assert [statement.origin.line for statement in reading.statements] == [1, 2, 3, 4, 5, 6]
    read = [rule for part in reading.said if isinstance(part, Appended) for rule in part.rules]
    composition = compose([reading])
    for number in (1, 2, 3):
        for family in Family:
            assert any(rule(composition, "INPUT", number, family) is each for each in read)


def test_the_rules_of_a_file_that_stays_are_the_same_objects() -> None:
    """Whatever other files say. A file that was read anew has new ones, and so has a rule that names a set of other set
    files. The result is that of composing for the first time."""
    stays = read_rules("b.rules", b"-A INPUT -i b\n:c -\n-A c -m set --match-set x src\n-I INPUT 2 -i b1\n")
    runs = RuleRuns()
    first = compose([read_rules("a.rules", b"-A INPUT -i a\n"), stays], runs=runs)
    edited = [read_rules("a.rules", b"-A INPUT -i a2\n-A c -i a\n"), stays]
    second, anew = compose(edited, runs=runs), compose(edited)
    assert second == anew
    assert texts(second, "INPUT") == ["-i a2", "-i b1", "-i b"]
    for family in Family:
        assert rule(second, "c", 1, family) is rule(first, "c", 0, family)
    named = compose(edited, sets={"x"}, runs=runs)
    assert named == compose(edited, sets={"x"})
    assert texts(named, "c", family=Family.IPV6) != texts(named, "c")
    assert compose(edited, runs=runs) == anew
