"""Rehearsals of what is new only: which rules are loaded, and that the result is that of a whole rehearsal."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce import known_lines
from fwguardd.enforce.known_lines import KnownLines
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.kernel.rehearsal import RehearsalRefused
from fwguardd.ruleset.canonical import Canonical
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.model import Candidate, Chain, Finding, Findings, Rule, Ruleset, Table
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.rule_runs import RuleRuns

if TYPE_CHECKING:
    from collections.abc import Callable

LINES = [f"-A INPUT -s 192.0.2.{number} -p tcp --dport {number} -j ACCEPT" for number in range(1, 20)]
BASE = ["-P INPUT DROP", ":WEB -", "-A INPUT -j WEB", *LINES, "-A WEB -s 10.0.0.1,10.0.0.2 -j DROP"]


def candidate(lines: list[str]) -> Candidate:
    """The candidate of one file with these lines."""
    return compose([read_rules("a.rules", "".join(f"{line}\n" for line in lines).encode())]).candidate


class Kernel:
    """Stands for a rehearsal: lists of addresses become several rules, and one address is refused. ``loaded`` has the
    number of rules of each rehearsal."""

    def __init__(self) -> None:
        self.loaded: list[int] = []
        self.spelling = "-j"

    def rehearse(self, candidate: Candidate, /) -> Canonical | RehearsalRefused:
        """Count and spell the rules."""
        self.loaded.append(sum(ruleset.rule_count for ruleset in candidate.rulesets.values()))
        if "203.0.113.9" in str(candidate):
            return RehearsalRefused(Findings([Finding("refused", "the kernel refuses it")]))
        rulesets = {}
        for family, ruleset in candidate.rulesets.items():
            tables = {}
            for table in ruleset.tables.values():
                chains = {chain.name: self._chain(chain) for chain in table.chains.values()}
                tables[table.name] = Table(table.name, chains)
            rulesets[family] = Ruleset(family, tables)
        return Canonical.rehearsed(rulesets)

    def _chain(self, chain: Chain) -> Chain:
        rules: list[Rule] = []
        for rule in chain.rules:
            for text in rule.text.replace("10.0.0.1,10.0.0.2", "10.0.0.1;-s 10.0.0.2").split(";"):
                rules.append(Rule(text.replace("-j", self.spelling), rule.origin))  # noqa: PERF401 - plainer so.
        return Chain(chain.name, chain.policy, tuple(rules), chain.origin)


@pytest.fixture(autouse=True)
def _no_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was put together is to be checked at once."""
    monkeypatch.setattr(known_lines, "QUIET", 0.0)


@pytest.fixture
def kernel() -> Kernel:
    """A kernel in memory."""
    return Kernel()


@pytest.fixture
def known(kernel: Kernel) -> KnownLines:
    """What has rehearsed BASE."""
    lines = KnownLines(kernel.rehearse, "nft")
    lines.rehearse(candidate(BASE))
    kernel.loaded.clear()
    return lines


def with_text(ruleset: Ruleset, old: str, new: str) -> Ruleset:
    """A ruleset with another text in its rules."""
    tables = {}
    for table in ruleset.tables.values():
        chains = {}
        for chain in table.chains.values():
            rules = tuple(Rule(rule.text.replace(old, new), rule.origin) for rule in chain.rules)
            chains[chain.name] = Chain(chain.name, chain.policy, rules, chain.origin)
        tables[table.name] = Table(table.name, chains)
    return Ruleset(ruleset.family, tables)


def with_origins(canonical: Canonical | RehearsalRefused) -> list[str]:
    """All of a result, origins included, as they take no part in comparisons."""
    assert isinstance(canonical, Canonical)
    return [f"{family} {ruleset.tables!r}" for family, ruleset in canonical.rulesets.items()]


NEW = "-A INPUT -s 192.0.2.200 -p udp --dport 53 -j ACCEPT"


@pytest.mark.parametrize(
    ("lines", "loaded"),
    [
        (BASE, []),
        ([*BASE[:9], *BASE[10:]], []),
        ([*BASE[:3], *reversed(LINES), BASE[-1]], []),
        ([*BASE[:9], NEW, *BASE[9:]], [1]),
        ([*BASE[:9], NEW, NEW, *BASE[10:]], [1]),
        (["# a comment", *BASE], []),
        ([*BASE, "-A WEB -s 10.0.0.1,10.0.0.2 -p tcp -j DROP"], [1]),
    ],
)
def test_only_what_is_new_is_rehearsed(kernel: Kernel, known: KnownLines, lines: list[str], loaded: list[int]) -> None:
    """Rules that have come are loaded, once each; of those that have gone, moved or stayed none. The result is that of
    a whole rehearsal, with the origins of now."""
    result = known.rehearse(candidate(lines))
    assert kernel.loaded == loaded
    assert with_origins(result) == with_origins(Kernel().rehearse(candidate(lines)))


@pytest.mark.parametrize(
    "lines",
    [
        ["-P INPUT ACCEPT", *BASE[1:]],
        [*BASE, ":NEW -"],
        [*BASE, "*nat"],
        [*BASE, "-A INPUT -s example.org -j ACCEPT"],
        [*BASE[:2], *BASE[3:]],
        [*BASE, BASE[2]],
        [BASE[0], BASE[1], *LINES[:3]],
        [*BASE[:12], *[line.replace("192.0.2", "198.51.100") for line in LINES], BASE[-1]],
    ],
    ids=["policy", "chain", "table", "name", "jump gone", "jump twice", "chain empty", "half is new"],
)
def test_all_is_rehearsed_where_rules_depend_on_each_other(kernel: Kernel, known: KnownLines, lines: list[str]) -> None:
    """After any change but one of plain rules, and where little would be saved."""
    wanted = candidate(lines)
    known.rehearse(wanted)
    assert kernel.loaded[-1] == sum(ruleset.rule_count for ruleset in wanted.rulesets.values())


def test_a_new_rule_that_is_refused_is_explained_by_a_whole_rehearsal(kernel: Kernel, known: KnownLines) -> None:
    """The findings are those of a whole rehearsal, and nothing is remembered after it."""
    wrong = [*BASE, "-A INPUT -s 203.0.113.9 -j ACCEPT"]
    assert isinstance(known.rehearse(candidate(wrong)), RehearsalRefused)
    assert len(kernel.loaded) == 2
    known.rehearse(candidate(BASE))
    assert len(kernel.loaded) == 3


def test_other_programs_rehearse_all(kernel: Kernel, known: KnownLines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of iptables may spell and accept other rules."""
    monkeypatch.setattr(known_lines, "program_stamp", lambda _: ((1, 2, 3, 4),))
    kernel.spelling = "--jump"
    assert with_origins(known.rehearse(candidate(BASE))) == with_origins(kernel.rehearse(candidate(BASE)))


def test_a_ruleset_that_was_in_force_is_rehearsed_whole(kernel: Kernel, known: KnownLines) -> None:
    """It is asked for because the kernel has refused to load it."""
    known.rehearse(Candidate(candidate(BASE).rulesets, accepted_before=True))
    assert kernel.loaded == [len(LINES) + 3]


def test_the_same_candidate_is_not_put_together_again(kernel: Kernel, known: KnownLines) -> None:
    """What has not changed at all is what it was: the same rulesets, and no rehearsal."""
    wanted = candidate([*BASE, NEW])
    first, again = known.rehearse(wanted), known.rehearse(wanted)
    assert isinstance(first, Canonical) and isinstance(again, Canonical)
    assert again.rulesets is first.rulesets
    assert kernel.loaded == [1]


def test_names_may_mean_something_else(kernel: Kernel) -> None:
    """A reload rehearses all, unless no rule names anything outside of the files; a chain is inside."""
    for lines, loaded in ((LINES, 1), (BASE, 1), ([*LINES, "-A INPUT -s example.org -j ACCEPT"], 2)):
        kernel.loaded.clear()
        known = KnownLines(kernel.rehearse, "nft")
        known.rehearse(candidate(lines))
        known.forget_names()
        known.rehearse(candidate(lines))
        assert len(kernel.loaded) == loaded


def test_a_wrong_result_is_found_by_the_check(kernel: Kernel, known: KnownLines) -> None:
    """A whole rehearsal that gives something else shows a defect, once, and all is rehearsed from then on."""
    known.rehearse(candidate([*BASE, NEW]))
    assert known.is_to_be_checked
    kernel.spelling = "--jump"
    assert known.differs(kernel.rehearse)
    assert not known.is_to_be_checked
    assert not known.differs(kernel.rehearse)
    kernel.loaded.clear()
    known.rehearse(candidate([*BASE, NEW]))
    assert kernel.loaded[0] > len(LINES)


def test_a_right_result_is_checked_once(kernel: Kernel, known: KnownLines) -> None:
    """What a whole rehearsal has confirmed is remembered."""
    known.rehearse(candidate([*BASE, NEW]))
    kernel.loaded.clear()
    assert not known.differs(kernel.rehearse)
    assert not known.differs(kernel.rehearse)
    assert len(kernel.loaded) == 1
    known.rehearse(candidate(BASE))
    assert len(kernel.loaded) == 1


def test_any_number_of_edits_gives_the_result_of_a_whole_rehearsal(kernel: Kernel) -> None:
    """Whatever comes, goes and moves, one edit after the other."""
    chance = random.Random(7)
    known, lines = KnownLines(kernel.rehearse, "nft"), list(BASE)
    for number in range(200):
        place = chance.randrange(3, len(lines))
        match chance.randrange(4):
            case 0 if len(lines) > 8:
                del lines[place]
            case 1:
                lines.insert(place, lines[chance.randrange(3, len(lines))])
            case _:
                lines.insert(place, f"-A {chance.choice(['INPUT', 'WEB'])} -s 10.1.{number}.1 -j ACCEPT")
        assert with_origins(known.rehearse(candidate(lines))) == with_origins(Kernel().rehearse(candidate(lines)))
    assert max(kernel.loaded[1:]) <= 2


MANY = [
    f"-A INPUT -s 10.{number // 200}.{number % 200}.1 -p tcp --dport {number + 1} -j ACCEPT" for number in range(600)
]


def test_two_rules_of_a_form_are_rehearsed(kernel: Kernel) -> None:
    """Of many rules that differ in addresses and ports the first and the last one of a chain are loaded, and all other
    rules. The result is that of a whole rehearsal, and stays to be checked; a small change of it is rehearsed alone."""
    known = KnownLines(kernel.rehearse, "nft")
    lines = [*BASE, *MANY, "-A WEB -s 192.0.2.9 -p udp --dport 53 -j ACCEPT"]
    result = known.rehearse(candidate(lines))
    of_ipv4, of_ipv6 = 2 + 1 + 1 + 1, 1
    assert kernel.loaded == [of_ipv4 + of_ipv6]
    assert with_origins(result) == with_origins(Kernel().rehearse(candidate(lines)))
    assert known.is_to_be_checked
    assert not known.differs(kernel.rehearse)
    kernel.loaded.clear()
    known.rehearse(candidate([*lines, NEW]))
    assert kernel.loaded == [1]


def test_few_rules_are_rehearsed_whole(kernel: Kernel) -> None:
    """Where little would be saved, and the bytes of each rule are wanted, all rules are loaded."""
    for number, loaded in ((known_lines.FEWEST - 1, known_lines.FEWEST - 1), (known_lines.FEWEST, 2)):
        kernel.loaded.clear()
        KnownLines(kernel.rehearse, "nft").rehearse(candidate(MANY[:number]))
        assert kernel.loaded == [loaded]


def test_after_a_failed_load_all_is_rehearsed_once(kernel: Kernel) -> None:
    """The next candidate is rehearsed whole, whatever it is: a form may have been spelled wrongly. After it two rules
    of each form are loaded again."""
    known = KnownLines(kernel.rehearse, "nft")
    known.rehearse(candidate(MANY))
    known.forget()
    kernel.loaded.clear()
    known.rehearse(candidate(MANY))
    known.rehearse(candidate([line.replace("ACCEPT", "DROP") for line in MANY]))
    assert kernel.loaded == [len(MANY), 2]


def test_a_form_that_was_spelled_wrongly_is_not_used_again(kernel: Kernel) -> None:
    """After a defect that a whole rehearsal has shown all rules of a new ruleset are rehearsed for good."""
    known = KnownLines(kernel.rehearse, "nft")
    known.rehearse(candidate(MANY))
    kernel.spelling = "--jump"
    assert known.differs(kernel.rehearse)
    kernel.loaded.clear()
    for target in ("DROP", "ACCEPT", "RETURN"):
        known.rehearse(candidate([line.replace("ACCEPT", target) for line in MANY]))
    assert kernel.loaded == [len(MANY)] * 3
    returned = [line.replace("ACCEPT", "RETURN") for line in MANY]
    known.rehearse(candidate([line.replace("RETURN", "DROP") for line in returned[:250]] + returned[250:]))
    assert kernel.loaded[3:] == [250]


def test_a_sample_that_is_refused_is_explained_by_a_whole_rehearsal(kernel: Kernel) -> None:
    """The findings name all rules that are refused, and not only those of the sample."""
    known = KnownLines(kernel.rehearse, "nft")
    wrong = [*BASE, *MANY, "-A INPUT -s 203.0.113.9 -j DROP"]
    assert isinstance(known.rehearse(candidate(wrong)), RehearsalRefused)
    assert kernel.loaded[-1] > len(MANY)
    assert not known.is_to_be_checked


def test_what_was_put_together_is_not_checked_at_once(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next change of files does not wait for the check of the last one."""
    now = [100.0]
    monkeypatch.setattr(known_lines, "QUIET", 5.0)
    monkeypatch.setattr("fwguardd.enforce.known_lines.time.monotonic", lambda: now[0])
    known = KnownLines(kernel.rehearse, "nft")
    known.rehearse(candidate([*BASE, *MANY]))
    now[0] = 104.9
    assert not known.is_to_be_checked
    now[0] = 105.0
    assert known.is_to_be_checked


@pytest.mark.parametrize("before", ["a", "c"])
def test_rules_that_stay_are_the_same_objects(kernel: Kernel, before: str) -> None:
    """What became of the rules of a file that stays is what it was before, object by object, whatever is edited in a
    file in front of it or behind it, and however many rules one rule becomes."""
    chance, runs, known = random.Random(before), RuleRuns(), KnownLines(kernel.rehearse, "nft")
    stays, lines = read_rules("b.rules", "".join(f"{line}\n" for line in BASE).encode()), list(LINES[:4])
    first = known.rehearse(compose([stays], runs=runs).candidate)
    for number in range(100):
        if chance.randrange(2) and len(lines) > 2:
            del lines[chance.randrange(len(lines))]
        address = chance.choice([f"10.1.{number}.1", "10.0.0.1,10.0.0.2"])
        lines.insert(chance.randrange(len(lines) + 1), f"-A {chance.choice(['INPUT', 'WEB'])} -s {address} -j ACCEPT")
        edited = read_rules(f"{before}.rules", "".join(f"{line}\n" for line in lines).encode())
        wanted = compose([edited, stays], runs=runs).candidate
        result = known.rehearse(wanted)
        assert with_origins(result) == with_origins(Kernel().rehearse(wanted))
        assert isinstance(first, Canonical) and isinstance(result, Canonical)
        for family, ruleset in first.rulesets.items():
            for table, chain in ruleset.chains():
                there = result.rulesets[family].tables[table.name].chains[chain.name].rules
                assert {*map(id, chain.rules)} <= {*map(id, there)}
    assert max(kernel.loaded[2:]) <= 2


def test_a_check_that_was_not_possible_is_made_later(kernel: Kernel) -> None:
    """Where no rehearsal is possible at the moment the result that was put together stays unchecked."""
    fails: list[bool] = [False]

    def rehearse(rehearsed: Candidate, /) -> Canonical | RehearsalRefused:
        if fails[0]:
            raise NamespaceError("the host is short of memory")
        return kernel.rehearse(rehearsed)

    known = KnownLines(rehearse, "nft")
    known.rehearse(candidate(BASE))
    known.rehearse(candidate([*BASE, NEW]))
    fails[0] = True
    with pytest.raises(NamespaceError):
        known.differs(rehearse)
    assert known.is_to_be_checked
    fails[0] = False
    assert not known.differs(rehearse)
    assert not known.is_to_be_checked


def test_a_name_that_has_another_address_by_now_is_no_defect(kernel: Kernel) -> None:
    """A rule that was rehearsed itself, as it names a host, may become another one at the check: nothing is reported,
    and two rules of each form are rehearsed again later."""
    lines = [*MANY, "-A INPUT -s host.example -j DROP"]

    def resolved(address: str) -> Callable[[Candidate], Canonical | RehearsalRefused]:
        def rehearse(wanted: Candidate, /) -> Canonical | RehearsalRefused:
            found = kernel.rehearse(wanted)
            assert isinstance(found, Canonical)
            rulesets = {
                family: with_text(ruleset, "host.example", address) for family, ruleset in found.rulesets.items()
            }
            return Canonical.rehearsed(rulesets)

        return rehearse

    known = KnownLines(resolved("192.0.2.1"), "nft")
    known.rehearse(candidate(lines))
    assert not known.differs(resolved("192.0.2.2"))
    kernel.loaded.clear()
    for target in ("DROP", "RETURN"):
        known.rehearse(candidate([line.replace("ACCEPT", target) for line in lines]))
    assert kernel.loaded[1] < 10
