"""Rehearsals of new rules only, and of two rules of each form, with the real programs: the same result as a rehearsal
of all rules."""

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


FORMS = (
    "-s {v4} -p tcp --dport {port} -j ACCEPT",
    "-p tcp --dport {port} -s {v4} -j ACCEPT",
    "-p udp --sport 1{port} -d {v4} --dport {port} -i eth0 -j DROP",
    "! -s {net}/16 -p tcp --syn -j REJECT --reject-with tcp-reset",
    "-s {net}/16 -d {v4}/32 -m conntrack --ctstate RELATED,ESTABLISHED,NEW -j ACCEPT",
    "-d {v6} -p udp --dport {port} -j ACCEPT",
    "-d {v6} -s 2001:db8::/32 -m limit --limit 60/min -j LOG --log-level 4 --log-prefix ab",
    "-s {v4} -m comment --comment {word} -j RETURN",
    '-m comment --comment "{word} {word}: -x/{word}" -p tcp -j DROP',
    "-p tcp --dport {port} -m comment --comment {word}",
)


def _rule_of_form(chance: random.Random) -> str:
    def octet() -> int:
        return chance.randrange(1, 255)

    values = {
        "v4": ".".join(str(octet()) for _ in range(4)),
        "net": f"{octet()}.{octet()}.0.0",
        "v6": f"2001:db8:{octet():x}::{octet():x}",
        "port": str(chance.choice([octet(), 5000 + octet()])),
        "word": f"w{octet()}-{octet()}_",
    }
    return f"-A {chance.choice(['INPUT', 'WEB'])} {chance.choice(FORMS).format(**values)}"


def test_two_rules_of_each_form_give_the_result_of_a_whole_rehearsal(rehearsals: Rehearsals) -> None:
    """What random rules of a few forms become is what a whole rehearsal prints, origins included, while few of them are
    loaded; and the check says so."""
    loaded: list[int] = []

    def counted(candidate: Candidate, /) -> Canonical | RehearsalRefused:
        loaded.append(sum(ruleset.rule_count for ruleset in candidate.rulesets.values()))
        return rehearsals.rehearse(candidate)

    chance = random.Random(12)
    for _ in range(scaled(gate=1, long=50)):
        loaded.clear()
        wanted = _candidate([_rule_of_form(chance) for _ in range(500)])
        known = KnownLines(counted, rehearsals.backend)
        assert _spelled(known.rehearse(wanted)) == _spelled(rehearsals.rehearse(wanted))
        assert len(loaded) == 1
        assert loaded[0] < 150
        assert not known.differs(rehearsals.rehearse)
