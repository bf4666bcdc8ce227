"""A lint that remembers what the last one has found out about rules finds the same as one that does not."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.lint import LintContext, LintMemory, lint
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.preserve import Preserve
from tests.counting import steps

if TYPE_CHECKING:
    from fwguardd.ruleset.model import Findings

CONTEXT = LintContext(("iptables denied: ",), Preserve.from_patterns([]))
LINES = (
    "-A INPUT -s 192.0.2.{} -j DROP", "-A INPUT -s 192.0.2.{} -j ACCEPT", "-A INPUT -s 192.0.2.0/24 -j DROP",
    "-A INPUT -p tcp --dport {} -j ACCEPT", "-A INPUT -p tcp --dport {} -j DROP", "-A INPUT -p tcp -j DROP",
    "-A LOGDROP -j LOG", "-A LOGDROP -s 10.0.0.{}/8 -j DROP", "-A INPUT -m limit --limit 5/min -j LOGDROP",
    "-A INPUT -j LOGDROP", "-A INPUT -s 192.0.2.{} -p udp --dport 0{}", "-A INPUT -i eth0:1 -j ACCEPT", "-A INPUT",
    '-A FORWARD -m comment --comment "of {}" -j ACCEPT', "-A INPUT -d 192.0.2.{}/32 -j REJECT",
)  # fmt: skip


def lint_of(lines: list[str], memory: LintMemory | None = None) -> Findings:
    """What a lint finds in one file with these lines."""
    reading = read_rules("a.rules", "".join(f"{line}\n" for line in (":LOGDROP -", *lines)).encode())
    return lint(compose([reading]).candidate, [reading], CONTEXT, memory)


def test_what_is_remembered_changes_no_finding() -> None:
    """After any number of edits."""
    chance = random.Random(3)
    memory, lines = LintMemory(), ["-A INPUT -i lo -j ACCEPT"]
    for _ in range(150):
        lines.insert(chance.randrange(len(lines) + 1), chance.choice(LINES).format(*[chance.randrange(1, 5)] * 2))
        if len(lines) > 12:
            del lines[chance.randrange(len(lines))]
        assert [*map(str, lint_of(lines, memory))] == [*map(str, lint_of(lines))]


def test_rules_that_stay_are_not_searched_again() -> None:
    """What no check of single rules can be about is known by its text; what has gone is forgotten."""
    lines = [
        f"-A INPUT -s 192.0.{number % 9}.{number % 250} -p tcp --dport {number} -j ACCEPT" for number in range(600)
    ]
    statements = read_rules("a.rules", "".join(f"{line}\n" for line in lines).encode()).statements
    memory = LintMemory()
    first = steps(lambda: memory.doubtful(statements))
    assert steps(lambda: memory.doubtful(statements)) < 0.7 * first
    memory.doubtful(statements[:10])
    assert len(memory.harmless) == 10
