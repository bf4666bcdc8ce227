"""A lint that remembers what the last one has found out about rules finds the same as one that does not."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import pytest

from fwguardd.ruleset import lint_chains
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.lint import LintContext, LintMemory, lint
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.preserve import Preserve
from fwguardd.ruleset.rule_runs import RuleRuns
from tests.counting import steps

if TYPE_CHECKING:
    from fwguardd.ruleset.model import Findings
    from fwguardd.ruleset.statements import Reading

CONTEXT = LintContext(("iptables denied: ",), Preserve.from_patterns([]))
LINES = (
    "-A INPUT -s 192.0.2.{} -j DROP", "-A INPUT -s 192.0.2.{} -j ACCEPT", "-A INPUT -s 192.0.2.0/24 -j DROP",
    "-A INPUT -p tcp --dport {} -j ACCEPT", "-A INPUT -p tcp --dport {} -j DROP", "-A INPUT -p tcp -j DROP",
    "-A LOGDROP -j LOG", "-A LOGDROP -s 10.0.0.{}/8 -j DROP", "-A INPUT -m limit --limit 5/min -j LOGDROP",
    "-A INPUT -j LOGDROP", "-A INPUT -s 192.0.2.{} -p udp --dport 0{}", "-A INPUT -i eth0:1 -j ACCEPT", "-A INPUT",
    '-A FORWARD -m comment --comment "of {}" -j ACCEPT', "-A INPUT -d 192.0.2.{}/32 -j REJECT",
)  # fmt: skip


def read(name: str, lines: list[str]) -> Reading:
    """A file with these lines."""
    return read_rules(name, "".join(f"{line}\n" for line in lines).encode())


def lint_of(readings: list[Reading], memory: LintMemory | None = None, runs: RuleRuns | None = None) -> Findings:
    """What a lint finds in these files."""
    return lint(compose(readings, runs=runs).candidate, readings, CONTEXT, memory)


def test_what_is_remembered_changes_no_finding() -> None:
    """After any number of edits of one of several files."""
    chance = random.Random(3)
    memory, runs = LintMemory(), RuleRuns()
    lines = [[":LOGDROP -"], ["-A INPUT -i lo -j ACCEPT"], []]
    readings = [read(f"{number}.rules", each) for number, each in enumerate(lines)]
    for _ in range(200):
        changed = chance.randrange(1, 3)
        edited = lines[changed]
        edited.insert(chance.randrange(len(edited) + 1), chance.choice(LINES).format(*[chance.randrange(1, 5)] * 2))
        if len(edited) > 9:
            del edited[chance.randrange(len(edited))]
        readings[changed] = read(f"{changed}.rules", edited)
        found = lint_of(readings, memory, runs)
        assert [*map(str, found)] == [*map(str, lint_of(readings))]


def test_long_chains_have_the_findings_of_short_ones() -> None:
    """In a chain with many rules of each kind only those are looked at that can matter: the findings are those of all,
    also about a rule behind one that takes all packets, and about one that is there twice."""
    many = [f"-A INPUT -s 10.0.{number}.1 -p tcp --dport {number + 30} -j ACCEPT" for number in range(200)]
    for odd in (
        ["-A INPUT -p tcp --dport 50 -j DROP"], ["-A INPUT -j DROP"], [many[7]], ["-A INPUT -s 10.0.9.1 -j DROP"],
        ["-A INPUT -s 192.0.2.1"], ["-A INPUT -p tcp -m conntrack --ctstate NEW ! --syn -j DROP"], [],
    ):  # fmt: skip
        for place in (0, 100, 200):
            readings = [read("a.rules", [*many[:place], *odd, *many[place:]])]
            whole = lint_of(readings)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(lint_chains, "_MANY_OF_A_KIND", 1000)
                assert [*map(str, whole)] == [*map(str, lint_of(readings))]


def steps_of_edit(rules: int) -> tuple[int, int]:
    """The steps of the first lint of so many rules and a small file, and of the next one, after an edit of that."""
    lines = [f"-A INPUT -s 10.0.9.{each % 250} -p tcp --dport {each + 100} -j ACCEPT" for each in range(rules)]
    memory, runs, large = LintMemory(), RuleRuns(), read("a.rules", lines)
    found: list[int] = []
    for port in (22, 25):
        readings = [large, read("b.rules", [f"-A INPUT -i lo -p tcp --dport {port} -j ACCEPT"])]
        candidate = compose(readings, runs=runs).candidate
        found.append(steps(partial(lint, candidate, readings, CONTEXT, memory)))
    return found[0], found[1]


def test_files_that_stay_are_not_searched_again() -> None:
    """The edit of a small file takes a few steps for each rule of a large one, in place of thirty."""
    many, few = steps_of_edit(900), steps_of_edit(300)
    assert many[0] - few[0] > 600 * 25
    assert many[1] - few[1] < 600 * 6


def test_files_that_have_gone_are_forgotten() -> None:
    """Only what is there now takes memory."""
    memory, runs = LintMemory(), RuleRuns()
    readings = [read("a.rules", ["-A INPUT -i eth0 -j ACCEPT"]), read("b.rules", ["-A INPUT -i lo -j ACCEPT"])]
    lint_of(readings, memory, runs)
    lint_of(readings[1:], memory, runs)
    assert memory.files.keys() == runs.files.keys() == {"b.rules"}


@pytest.mark.parametrize(
    ("plain", "doubtful", "code"),
    [
        ("-s 192.0.2.1 -j DROP", "-s 0::ffff:102:304 -j DROP", "v4-mapped"),
        ('-m comment --comment "use -p tcp" --dport 80 -j DROP', "-m comment --comment x --dport 80 -j DROP", "port"),
        ("-p tcp --dport 80 -j DROP", "-p tcp --dport 65536 -j DROP", "port"),
        ("-s 10.0.0.0/8 -j DROP", "-s 10.1.0.0/8 -j DROP", "host-bits"),
    ],
)
def test_a_rule_is_searched_whatever_stands_before_it(plain: str, doubtful: str, code: str) -> None:
    """A warning about a value comes too where an earlier rule differs from it in addresses, ports and comments only."""
    alone = [str(each) for each in lint_of([read("a.rules", [f"-A INPUT {doubtful}"])]) if code in each.code]
    behind = lint_of([read("a.rules", [f"-A INPUT {plain}", f"-A INPUT {doubtful}"])])
    assert [str(each).replace(":2", ":1") for each in behind if code in each.code and ":2" in str(each)] == alone


def test_kinds_of_rules_that_have_gone_are_forgotten() -> None:
    """However many different rules come and go, no more is remembered than what is there calls for."""
    memory = LintMemory()
    for start in range(1, 8000, 500):
        ports = [f"{number},{number + 1}" for number in range(start, start + 500)]
        lint_of([read("a.rules", [f"-A INPUT -p tcp -m multiport --dports {each} -j DROP" for each in ports])], memory)
        assert len(memory.reader._kinds) <= 4000
