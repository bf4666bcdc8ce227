"""Edits over netlink: what the kernel holds after one is what iptables would have made, or iptables makes it."""

from __future__ import annotations

import random
import socket
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.known_lines import KnownLines
from fwguardd.enforce.transaction import Applied, Unchanged, find_drift, put_in_force
from fwguardd.kernel import netlink, nft_batches, nft_edits
from fwguardd.kernel.iptables import Backend, LiveKernel, RestoreRefusedError
from fwguardd.kernel.last_looks import present
from fwguardd.kernel.namespaces import NamespaceMethod, NamespacePool
from fwguardd.kernel.rehearsal import Rehearsals
from fwguardd.kernel.rehearsed_rules import RehearsedRules
from fwguardd.kernel.rule_handles import learn
from fwguardd.kernel.rule_notices import RuleNotices
from fwguardd.ruleset.canonical import Canonical
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.model import FAMILIES, Family
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.preserve import STRICT, Preserve
from fwguardd.threads import ThreadNotStartedError
from tests.netns.namespaces import fresh_namespace
from tests.scale import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from fwguardd.kernel.rule_handles import Handles
    from fwguardd.ruleset.save_format import Saved

pytestmark = pytest.mark.root

HEAD = "-P INPUT DROP\n:WEB -\n-A INPUT -i lo -j ACCEPT\n-A INPUT -j WEB\n-A WEB -p tcp --dport 80 -j ACCEPT\n"
PLAIN = (
    "-A INPUT -s 192.0.2.{} -p tcp --dport 25 -j ACCEPT", "-A INPUT -p udp --dport {} -j DROP",
    "-A WEB ! -s 10.{}.0.0/16 -i eth+ -j REJECT", "-A FORWARD -p tcp --syn --sport {}:600 -j ACCEPT",
    '-A INPUT -m comment --comment "rule {}" -j ACCEPT', "-A INPUT -m limit --limit {}/hour -j LOG --log-prefix x",
    "-A INPUT -m conntrack --ctstate NEW -s 192.0.2.{} -j RETURN", "-A WEB -d 2001:db8::{}/128 -j DROP",
)  # fmt: skip
FOR_IPTABLES = "-A INPUT -p tcp -m multiport --dports 1,2 -j ACCEPT"
"""A match for one protocol, which the kernel takes only together with that."""


class Counted(LiveKernel):
    """Counts the runs of iptables: texts that were loaded, and looks."""

    restores = 0
    looks = 0

    def look(self, families: Collection[Family]) -> Mapping[Family, Saved]:
        """As in the base class."""
        self.looks += 1
        return super().look(families)

    def restore(self, family: Family, text: str) -> None:
        """As in the base class."""
        self.restores += 1
        super().restore(family, text)


@dataclass
class Bench:
    """Rules in force, in a namespace of their own."""

    pool: NamespacePool
    rules: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rehearsals = Rehearsals("nft", self.pool)
        self.known = KnownLines(self.rehearsals.rehearse, "nft")
        self.kernel = Counted(Backend.NFT, self.rehearsals.rehearsed)
        self.wanted = self.rehearse()

    def rehearse(self) -> Canonical:
        """What a kernel makes of the rules."""
        text = "\n".join([HEAD, *self.rules, ""])
        made = self.known.rehearse(compose([read_rules("a.rules", text.encode())]).candidate)
        assert isinstance(made, Canonical)
        return made

    def apply(self) -> tuple[int, int]:
        """Put the rules in force; how many texts were loaded, and how often the kernel was looked at."""
        before, self.wanted = self.wanted, self.rehearse()
        self.kernel.restores = self.kernel.looks = 0
        outcome = put_in_force(self.kernel, self.wanted, STRICT)
        # A rule that went and came again at its place is no change.
        assert isinstance(outcome, Applied) or (isinstance(outcome, Unchanged) and before == self.wanted)
        return self.kernel.restores, self.kernel.looks

    def holds(self) -> bool:
        """Whether the kernel holds the rules, as iptables sees it, and as is known without a look."""
        assert find_drift(LiveKernel(Backend.NFT), self.wanted, STRICT) == ()
        return isinstance(put_in_force(self.kernel, self.wanted, STRICT), Unchanged)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A few rules count as many."""
    monkeypatch.setattr(nft_edits, "MANY", 1)
    pool = NamespacePool(lambda: NamespaceMethod.PRIVILEGED, spares=0)
    with fresh_namespace():
        made = Bench(pool, [rule.format(number) for number in range(3, 6) for rule in PLAIN])
        made.apply()
        yield made
        made.kernel._last.stop_following()
    pool.close()


def test_an_edit_runs_no_program_on_the_live_tables(bench: Bench) -> None:
    """Rules come, go and move in both families, at the head, in the middle and at the end of chains: iptables loads
    nothing, and no look is needed; iptables shows what it would have loaded."""
    for place, rule in ((0, "-A INPUT -p tcp --dport 7 -j ACCEPT"), (9, PLAIN[0].format(77)), (26, PLAIN[7].format(7))):
        bench.rules.insert(place, rule)
        assert bench.apply() == (0, 0)
        assert bench.holds()
    for place in (26, 0, 5):
        del bench.rules[place]
        assert bench.apply() == (0, 0)
        assert bench.holds()
    bench.rules[3:5] = ["-A WEB -p udp --dport 8 -j DROP", "-A WEB -p udp --dport 9 -j DROP"]
    assert bench.apply() == (0, 0)
    assert bench.holds()


def test_without_a_thread_the_socket_is_closed_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started that waits for the end of a transaction, the edit is made all the same."""

    def no_thread(_work: object) -> None:
        raise ThreadNotStartedError

    monkeypatch.setattr(nft_edits, "in_thread", no_thread)
    test_an_edit_runs_no_program_on_the_live_tables(bench)


def test_random_edits_lead_where_iptables_would(bench: Bench) -> None:
    """Whatever the rules are, iptables shows after each edit what a rehearsal by iptables made of them."""
    chance = random.Random(5)
    texts = 0
    for _ in range(scaled(gate=8, long=600)):
        for _ in range(chance.randrange(1, 4)):
            del bench.rules[chance.randrange(len(bench.rules))]
            new = chance.choice((*PLAIN, FOR_IPTABLES)).format(chance.randrange(1, 200))
            bench.rules.insert(chance.randrange(len(bench.rules)), new)
        texts += bench.apply()[0]
        assert bench.holds()
        assert bench.kernel._last.wrong == []
    assert texts < scaled(gate=16, long=1200)


def test_rules_that_stay_keep_what_they_have_counted(bench: Bench) -> None:
    """They are not touched. What iptables shows next has the counters."""
    loaded = "*filter\n[7:700] -R INPUT 1 -i lo -j ACCEPT\nCOMMIT\n"
    bench.kernel.restore(Family.IPV4, loaded)
    bench.kernel.look(FAMILIES)
    bench.rules.insert(0, PLAIN[0].format(9))
    assert bench.apply() == (0, 0)
    chain = bench.kernel.look(FAMILIES)[Family.IPV4].shown.tables["filter"].chains["INPUT"]
    assert chain.rules[0].counters.packets == 7


@pytest.mark.parametrize("rule", [FOR_IPTABLES, ":NEW -\n-A INPUT -j NEW", "-P FORWARD DROP"])
def test_what_netlink_cannot_do_alone_is_left_to_iptables(bench: Bench, rule: str) -> None:
    """Chains, policies, and rules that need more than their expressions."""
    bench.rules.append(rule)
    restores, looks = bench.apply()
    assert restores >= 1
    assert looks >= 1
    assert bench.holds()


def test_a_new_ruleset_of_a_hundred_rules_takes_no_iptables(bench: Bench) -> None:
    """Nearly all rules go and others come in one transaction. The answer to it has room, also where rules are long."""
    long = f'-m comment --comment "{"x" * 200} {{}}" -j ACCEPT'
    outcome = -1, -1
    for first in (1, 101):
        bench.rules = [f"-A INPUT -s 192.0.2.1/32 {long.format(number)}" for number in range(first, first + 70)]
        bench.rules += [PLAIN[1].format(number) for number in range(first, first + 30)]
        outcome = bench.apply()
        assert bench.holds()
    assert outcome == (0, 0)
    assert bench.kernel._last.wrong == []


def test_few_rules_are_left_to_iptables(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """There it is as fast; so are changes of many rules at once."""
    monkeypatch.setattr(nft_edits, "MANY", 1000)
    bench.rules.append(PLAIN[1].format(9))
    assert bench.apply()[0] == 2
    monkeypatch.setattr(nft_edits, "MANY", 1)
    monkeypatch.setattr(nft_edits, "MOST_CHANGES", 3)
    bench.rules += [PLAIN[1].format(10), PLAIN[1].format(11)]
    assert bench.apply()[0] == 2
    assert bench.holds()


def before_the_write(monkeypatch: pytest.MonkeyPatch, step: Callable[[], None]) -> None:
    """Something happens between the plan and the first transaction."""
    real, steps = nft_batches.transaction, [step]

    def late(generation: int, changes: list[nft_batches.ChainChange]) -> bytes:
        made = real(generation, changes)
        if steps:
            steps.pop()()
        return made

    monkeypatch.setattr(nft_edits, "transaction", late)


@pytest.mark.parametrize("change", ["-I INPUT -s 192.0.2.99 -j DROP", "-D INPUT 3", "-F WEB", "-P INPUT ACCEPT"])
def test_a_change_by_another_program_right_before_the_write_refuses_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The kernel does nothing of it, the tables are looked at, and a new plan leads to what is wanted."""
    before_the_write(monkeypatch, lambda: void(subprocess.run(["iptables-nft", *change.split()], check=True)))
    bench.rules.insert(2, PLAIN[0].format(78))
    assert bench.apply()[1] >= 1
    assert bench.holds()


def handles(bench: Bench) -> Handles:
    """The handles that the kernel has given to the rules."""
    found: Handles = {}
    learn(bench.kernel.look([Family.IPV4])[Family.IPV4].shown, found)
    return found


def void(_: object) -> None:
    """Nothing."""


def test_handles_of_another_time_are_not_used(bench: Bench) -> None:
    """After rules were loaded by anybody, rules with equal texts have other handles."""
    bench.rules.insert(0, PLAIN[0].format(80))
    assert bench.apply() == (0, 0)
    saved = subprocess.run(["iptables-nft-save"], check=True, capture_output=True, text=True).stdout
    before = handles(bench)
    subprocess.run(["iptables-nft-restore"], input=saved, text=True, check=True)
    assert handles(bench) != before
    del bench.rules[1]
    bench.apply()
    assert bench.holds()


def test_another_answer_than_wanted_makes_a_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel did not say that it did just what was wanted, iptables has to show it."""
    monkeypatch.setattr(nft_edits, "handles_after", lambda *_: None)
    bench.rules.insert(0, PLAIN[0].format(80))
    assert bench.apply() == (0, 1)
    assert bench.holds()


def test_rules_of_other_bytes_are_found_by_the_next_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a rule were made of what belongs to another text, the next look contradicts, and the difference is drift."""
    other = bench.rehearsals.rehearsed

    def wrong(self: RehearsedRules, family: Family, _: str) -> bytes:
        assert self is other
        return next(found for (of, _), found in self._expressions.items() if of is family)

    bench.rules += [PLAIN[1].format(111), PLAIN[1].format(112)]
    monkeypatch.setattr(RehearsedRules, "expressions", wrong)
    assert bench.apply() == (0, 0)
    assert len(find_drift(bench.kernel, bench.wanted, STRICT)) > 0
    assert len(bench.kernel._last.wrong) == 2


def test_a_refusal_by_the_kernel_is_left_to_iptables(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a transaction that it refuses it has done nothing; iptables then loads all, or says what is wrong."""
    monkeypatch.setattr(RehearsedRules, "expressions", lambda *_: b"\x08\x00\x01\x00none")
    bench.rules.insert(0, PLAIN[0].format(80))
    assert bench.apply()[0] >= 1
    assert bench.holds()
    with pytest.raises(RestoreRefusedError):
        bench.kernel.restore(Family.IPV4, "*filter\n-A INPUT -j nowhere\nCOMMIT\n")


def test_a_socket_that_fails_is_not_used_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables are looked at, since it may have failed after the write, and iptables writes from then on."""

    def fail(*_: object) -> list[bytes]:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(nft_edits, "_answers_to", fail)
    for number in (80, 81):
        bench.rules.insert(0, PLAIN[0].format(number))
        assert bench.apply()[0] >= 1
        assert bench.holds()


def test_a_plan_is_carried_out_on_the_rules_that_it_was_made_for(bench: Bench) -> None:
    """A rule goes that another program has, between the look and the write: numbers in the plan would mean other rules
    then. What is wanted comes with another plan."""
    bench.rules = [rule for number in range(3) for rule in ("-A INPUT -s 192.0.2.9 -j DROP", PLAIN[1].format(number))]
    assert bench.apply() == (0, 0)
    other = ["iptables-nft", "-I", "INPUT", "-s", "192.0.2.99", "-j", "DROP"]
    subprocess.run(other, check=True)
    preserve = Preserve.from_patterns(["-s 192.0.2.99/*"])
    bench.kernel.look(FAMILIES)
    bench.kernel._last.learn(present("nft"))
    del bench.rules[2]  # One of three with the same text, which a plan names by its number.
    wanted = bench.rehearse()

    def late(_: object) -> Preserve:
        subprocess.run(["iptables-nft", "-D", *other[2:]], check=True)
        return preserve

    outcome = put_in_force(bench.kernel, wanted, preserve, before_write=late)
    assert isinstance(outcome, Applied)
    assert find_drift(LiveKernel(Backend.NFT), wanted, STRICT) == ()


def test_handles_are_forgotten_where_later_notices_may_be_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If more was told of an edit than a socket holds, what another program does at that moment may be missed: nothing
    is known of any handle then, so that no later change is taken for one of another rule."""
    bench.kernel._last.learn(present("nft"))

    def overrun(self: RuleNotices, _: int) -> None:
        self._begin_anew()

    monkeypatch.setattr(RuleNotices, "changes_until", overrun)
    bench.rules.insert(0, PLAIN[0].format(80))
    assert bench.apply()[0] == 0
    assert bench.kernel._last.handles == {}
    monkeypatch.undo()
    assert bench.holds()


def test_where_a_socket_cannot_be_enlarged_few_changes_are_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a user namespace its size is limited: a larger transaction is left to iptables, a small one is not."""
    real = socket.socket.setsockopt

    def refuse(self: socket.socket, level: int, option: int, value: int) -> None:
        if option == netlink.SO_SNDBUFFORCE:
            raise PermissionError(1, "Operation not permitted")
        real(self, level, option, value)

    monkeypatch.setattr(socket.socket, "setsockopt", refuse)
    bench.rules.insert(0, PLAIN[0].format(80))
    assert bench.apply() == (0, 0)
    monkeypatch.setattr(nft_edits, "_USUAL_ROOM", 400)
    bench.rules[:1] = [PLAIN[0].format(number) for number in range(81, 85)]
    assert bench.apply()[0] >= 1
    assert bench.holds()
    monkeypatch.undo()
