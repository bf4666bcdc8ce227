"""Rehearsals of new rules only, with the real programs: the same result as a rehearsal of all rules."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.known_lines import KnownLines
from fwguardd.kernel.namespaces import NamespaceMethod, NamespacePool
from fwguardd.kernel.rehearsal import RehearsalRefused, Rehearsals
from fwguardd.ruleset.canonical import Canonical
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.parser import read_rules
from tests.scale import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.ruleset.model import Candidate

HEAD = (
    "-P INPUT DROP\n:WEB -\n-A INPUT -j WEB\n-A INPUT -m recent --update --name a --seconds 60 -j DROP\n"
    "-A INPUT -s 192.0.2.7 -m mark --mark 0x1 -j ACCEPT\n"
)
SOURCES = (
    "-s 192.0.2.{} ",
    "-s 10.{}.7.9/8 ",
    "-s 192.0.2.{},198.51.100.4/24 ",
    "! -s 2001:db8::{}/64 ",
    "-d fe80::/10 ",
    "",
)
INSIDE = ("-i lo ", "! -i eth+ ", "")
MATCHES = (
    "-p tcp --dport {} ", "-p tcp -m tcp ! --sport {}:60000 ", "-p udp -m multiport --dports {},53,1000:2000 ",
    "-p icmp ", "-p tcp --syn ", "-p tcp --tcp-flags ALL FIN,URG ", "-m conntrack --ctstate RELATED,ESTABLISHED,NEW ",
    "-m state --state NEW ", '-m comment --comment "of {}" ', "-m comment --comment x{} ", "-m limit --limit {}/hour ",
    "-p tcp -m limit --limit 60/min --limit-burst 5 ", "",
)  # fmt: skip
TARGETS = (
    "-j ACCEPT", "-j DROP", "-j RETURN", "-j REJECT", "-p tcp -j REJECT --reject-with tcp-reset",
    '-j LOG --log-prefix "a b: "', "-j LOG --log-prefix ab --log-level 4", "",
)  # fmt: skip


@pytest.fixture
def rehearsals(backend: str) -> Iterator[Rehearsals]:
    """Rehearsals with the real programs."""
    pool = NamespacePool(lambda: NamespaceMethod.PRIVILEGED, spares=0)
    yield Rehearsals(backend, pool)
    pool.close()


def _rule(chance: random.Random) -> str:
    parts = (chance.choice(SOURCES), chance.choice(INSIDE), chance.choice(MATCHES))
    text = "".join(part.format(chance.randrange(1, 200)) for part in parts)
    target = chance.choice(TARGETS)
    if "-p " in text:
        target = target.removeprefix("-p tcp ").replace("-j REJECT --reject-with tcp-reset", "-j REJECT")
    return f"-A {chance.choice(['INPUT', 'WEB', 'FORWARD'])} {text}{target}".rstrip()


def _candidate(rules: list[str]) -> Candidate:
    return compose([read_rules("a.rules", "\n".join([HEAD, *rules, ""]).encode())]).candidate


def _spelled(result: object) -> list[str]:
    assert isinstance(result, Canonical)
    return [f"{family} {ruleset.tables!r}" for family, ruleset in result.rulesets.items()]


def test_edits_give_the_result_of_a_whole_rehearsal(rehearsals: Rehearsals) -> None:
    """Random plain rules come, go and move; what is put together is what a whole rehearsal prints, origins included,
    while one rule at a time is loaded."""
    loaded: list[int] = []

    def counted(candidate: Candidate, /) -> Canonical | RehearsalRefused:
        loaded.append(sum(ruleset.rule_count for ruleset in candidate.rulesets.values()))
        return rehearsals.rehearse(candidate)

    chance = random.Random(11)
    rules = [_rule(chance) for _ in range(40)]
    known = KnownLines(counted, rehearsals.backend)
    known.rehearse(_candidate(rules))
    for _ in range(scaled(gate=6, long=500)):
        del rules[chance.randrange(len(rules))]
        rules.insert(chance.randrange(len(rules)), _rule(chance))
        wanted = _candidate(rules)
        assert _spelled(known.rehearse(wanted)) == _spelled(rehearsals.rehearse(wanted))
    assert max(loaded[1:]) <= 2
