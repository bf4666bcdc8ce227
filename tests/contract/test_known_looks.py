"""A look at the kernel that need not be taken: nobody has written since the last one, and nf_tables says so."""

from __future__ import annotations

import socket
import subprocess
from array import array
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.transaction import Applied, Unchanged, find_drift, put_in_force
from fwguardd.kernel import last_looks
from fwguardd.kernel.iptables import Backend, LiveKernel
from fwguardd.ruleset.model import FAMILIES, ZERO, Family
from fwguardd.ruleset.preserve import STRICT
from fwguardd.ruleset.save_format import rules_in_order
from tests.contract.test_transaction import rehearsed
from tests.netns.namespaces import fresh_namespace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from fwguardd.ruleset.save_format import Saved

pytestmark = pytest.mark.root

FIRST = rehearsed("-P INPUT ACCEPT\n-A INPUT -i lo -p udp -m udp --dport 9 -j ACCEPT\n-A INPUT -i lo -j ACCEPT\n")
SECOND = rehearsed(
    "-P INPUT ACCEPT\n-A INPUT -i lo -p udp -m udp --dport 9 -j ACCEPT\n-A INPUT -i lo -j ACCEPT\n"
    "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n"
)
TURNED = rehearsed("-P INPUT ACCEPT\n-A INPUT -i lo -j ACCEPT\n-A INPUT -i lo -p udp -m udp --dport 9 -j ACCEPT\n")


class Counted(LiveKernel):
    """Counts the looks that run iptables-save."""

    looks = 0

    def look(self, families: Collection[Family]) -> Mapping[Family, Saved]:
        """As in the base class."""
        self.looks += 1
        return super().look(families)


@pytest.fixture
def kernel() -> Iterator[Counted]:
    """nf_tables, in a namespace of its own, which holds FIRST."""
    with fresh_namespace():
        made = Counted(Backend.NFT)
        assert isinstance(put_in_force(made, FIRST, STRICT), Applied)
        made.looks = 0
        yield made
        made._last.stop_following()


def run(command: str) -> None:
    """Another program changes something."""
    subprocess.run(command.split(), check=True)


def send_to_port_9() -> None:
    """A packet that the first rule counts."""
    run("ip link set lo up")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"", ("127.0.0.1", 9))


def counted(kernel: LiveKernel, text: str) -> int:
    """The packets that a rule has counted."""
    chain = kernel.look(FAMILIES)[Family.IPV4].shown.tables["filter"].chains["INPUT"]
    return next(rule.counters.packets for rule in chain.rules if text in rule.text)


def test_a_change_takes_one_look_and_no_change_none(kernel: Counted) -> None:
    """A write is verified by a look; before it, and where nothing is to be written, the last look is enough."""
    assert isinstance(put_in_force(kernel, SECOND, STRICT), Applied)
    assert kernel.looks == 1
    assert isinstance(put_in_force(kernel, SECOND, STRICT), Unchanged)
    assert kernel.looks == 1
    assert find_drift(LiveKernel(Backend.NFT), SECOND, STRICT) == ()


def test_a_text_is_held_once_for_what_is_in_force_and_what_the_kernel_shows(kernel: Counted) -> None:
    """Of a rule that has counted nothing. What the next look shares its texts with is not held beyond that look."""
    put_in_force(kernel, SECOND, STRICT)
    texts = {rule.text: rule.text for rule in rules_in_order(SECOND.rulesets[Family.IPV4])}
    shown = [rule for rule in rules_in_order(kernel.shown[Family.IPV4]) if rule.counters is ZERO]
    assert shown
    assert all(rule.text is texts[rule.text] for rule in shown)
    assert not kernel._last.like


@pytest.mark.parametrize(
    "change",
    [
        "iptables-nft -D INPUT -i lo -j ACCEPT",
        "iptables-nft -P INPUT DROP",
        "iptables-nft -N other",
        "ip6tables-nft -A INPUT -j DROP",
        "nft insert rule ip filter INPUT counter drop",
        "nft add table ip nat",
    ],
)
def test_a_change_by_another_program_is_seen(kernel: Counted, change: str) -> None:
    """After any commit by another program, right before a load too, the kernel is read."""
    run(change)
    assert kernel.last_look(FAMILIES) is None
    put_in_force(kernel, SECOND, STRICT.owning(FIRST.rulesets))
    assert kernel.looks >= 2
    assert find_drift(LiveKernel(Backend.NFT), SECOND, STRICT) == ()


def test_a_change_during_a_look_is_seen(kernel: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that a commit fell into is not taken for the present."""
    present = iter([last_looks.Moment(1, ()), last_looks.Moment(2, ()), last_looks.Moment(2, ())])
    monkeypatch.setattr("fwguardd.kernel.iptables.present", lambda _: next(present))
    kernel.look(FAMILIES)
    assert kernel.last_look(FAMILIES) is None


def test_a_new_version_of_iptables_is_noticed(kernel: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version may print the same rules in other words: the kernel is read again once a program was replaced."""
    assert kernel.last_look(FAMILIES) is not None
    monkeypatch.setattr(last_looks, "program_stamp", lambda _: ((1, 2, 3, 4),))
    assert kernel.last_look(FAMILIES) is None


def test_rules_that_are_written_again_keep_what_they_have_counted_since_the_last_look(kernel: Counted) -> None:
    """The counters of a known look are old, those that are zero too: the rules that a plan writes again are counted
    anew, one by one, and no look is taken before the write."""
    send_to_port_9()
    for wanted in (TURNED, FIRST):
        kernel.looks = 0
        assert isinstance(put_in_force(kernel, wanted, STRICT), Applied)
        assert (kernel.looks, counted(kernel, "--dport 9")) == (1, 1)
    send_to_port_9()
    assert isinstance(put_in_force(kernel, TURNED, STRICT), Applied)
    assert counted(kernel, "--dport 9") == 2


def test_each_of_two_equal_rules_keeps_what_it_has_counted(kernel: Counted) -> None:
    """Where a text stands twice in a chain, the plan is made anew with the present counters of both."""
    twice = "-P INPUT ACCEPT\n-A INPUT -i lo -p udp -m udp --dport 9 -j LOG\n{}-A INPUT -i lo -j ACCEPT\n"
    again = "-A INPUT -i lo -p udp -m udp --dport 9 -j LOG\n"
    put_in_force(kernel, rehearsed(twice.format(again)), STRICT)
    send_to_port_9()
    kernel.looks = 0
    turned = "-P INPUT ACCEPT\n-A INPUT -i lo -j ACCEPT\n" + 2 * again
    assert isinstance(put_in_force(kernel, rehearsed(turned), STRICT), Applied)
    assert kernel.looks == 1
    chain = kernel.look(FAMILIES)[Family.IPV4].shown.tables["filter"].chains["INPUT"]
    assert [rule.counters.packets for rule in chain.rules if "LOG" in rule.text] == [1, 1]


@pytest.mark.parametrize("unknown", ["gone", "fewer"])
def test_where_rules_cannot_be_counted_anew_the_kernel_is_read(kernel: Counted, unknown: str) -> None:
    """A handle that the kernel has not given, or another number of handles than rules, is a reason for a look."""
    kernel._last.learn(last_looks.present("nft"))
    for place, numbers in kernel._last.handles.items():
        if unknown == "gone":
            kernel._last.handles[place] = array("Q", [number + 1000 for number in numbers])
        else:
            del numbers[:1]
    send_to_port_9()
    kernel.looks = 0
    assert isinstance(put_in_force(kernel, TURNED, STRICT), Applied)
    assert kernel.looks == 2
    assert counted(kernel, "--dport 9") == 1


def test_a_policy_that_changes_keeps_what_it_has_counted(kernel: Counted) -> None:
    """Where a policy is written the kernel is read before."""
    assert isinstance(put_in_force(kernel, rehearsed("-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n"), STRICT), Applied)
    assert kernel.looks == 2


def test_policies_that_stay_keep_their_counters(kernel: Counted) -> None:
    """An edit that does not touch the policy writes none, and nf_tables keeps what it has counted."""
    run("iptables-nft -A OUTPUT -j ACCEPT")
    run("iptables-nft -D OUTPUT -j ACCEPT")
    run("ip link set lo up")
    chains = kernel.look(FAMILIES)[Family.IPV4].shown.tables["filter"].chains
    send_to_port_9()
    assert isinstance(put_in_force(kernel, SECOND, STRICT), Applied)
    after = kernel.look(FAMILIES)[Family.IPV4].shown.tables["filter"].chains
    assert after["OUTPUT"].counters.packets > chains["OUTPUT"].counters.packets


def test_legacy_tables_are_always_read() -> None:
    """The kernel counts no changes of legacy tables."""
    with fresh_namespace():
        kernel = Counted(Backend.LEGACY)
        put_in_force(kernel, FIRST, STRICT)
        assert kernel.last_look(FAMILIES) is None
