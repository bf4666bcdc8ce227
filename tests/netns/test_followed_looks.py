"""What the kernel holds, known from its notices of what was changed, without iptables-save.

It is compared with what iptables-save shows, after each change by another program.
"""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel.iptables import Backend, LiveKernel
from fwguardd.kernel.rule_handles import shows_all
from fwguardd.kernel.rule_notices import Place
from fwguardd.progress import MarkingKernel, Progress
from fwguardd.ruleset.model import FAMILIES, Family
from tests.scale import scaled

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from fwguardd.kernel.last_looks import LastLooks
    from fwguardd.ruleset.model import Ruleset
    from fwguardd.ruleset.save_format import Saved

pytestmark = [pytest.mark.root, pytest.mark.parametrize("backend", ["nft"], indirect=True)]

RULES = (
    "*filter\n:INPUT DROP\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n:A -\n:B -\n"
    + "".join(f"-A INPUT -p tcp -m tcp --dport {port} -j ACCEPT\n" for port in range(1, 30))
    + "-A INPUT -j A\n-A A -j RETURN\n-A A -j RETURN\n-A A -j DROP\n-A B -p icmp -j ACCEPT\nCOMMIT\n"
    "*mangle\n:PREROUTING ACCEPT\n-A PREROUTING -p udp -j MARK --set-xmark 0x1/0xffffffff\nCOMMIT\n"
)
STEPS = scaled(gate=25, long=2_000)

KNOWN = (
    "iptables-nft -D INPUT {number}",
    "iptables-nft -D A 1",
    "ip6tables-nft -F B",
    "iptables-nft -F A",
    "iptables-nft -P INPUT ACCEPT",
    "ip6tables-nft -P OUTPUT DROP",
    "ip6tables-nft -D INPUT {number}",
    "iptables-nft -t mangle -F PREROUTING",
    "iptables-nft -F",
    "nft flush chain ip filter B",
    "nft flush table ip mangle",
    "nft add table inet other",
    "nft add set inet other s {{ type ipv4_addr; }}",
)
"""Changes that are known from notices."""
UNKNOWN = (
    "iptables-nft -A B -s 192.0.2.{number} -j DROP",
    "iptables-nft -I INPUT {number} -j A",
    "iptables-nft -R A 1 -j ACCEPT",
    "iptables-nft -N C{number}",
    "ip6tables-nft -X C{number}",
    "nft add rule ip filter B accept",
    "nft add chain ip filter D",
    "iptables-nft -t nat -A POSTROUTING -j MASQUERADE",
    "nft delete table ip6 mangle",
)
"""Changes after which a look is taken."""


class Kernel(MarkingKernel):
    """Counts the looks that run iptables-save."""

    looks = 0

    def look(self, families: Collection[Family]) -> Mapping[Family, Saved]:
        """As in the base class."""
        self.looks += 1
        return super().look(families)


def load(text: str = RULES) -> None:
    """Another program loads these rules, in both families."""
    for program in ("iptables-nft-restore", "ip6tables-nft-restore"):
        subprocess.run([program], input=text, text=True, check=True)


def run(command: str) -> None:
    """Another program changes something, or fails to."""
    subprocess.run(command.split(), check=False, stderr=subprocess.DEVNULL)


def truth() -> Mapping[Family, Ruleset]:
    """What iptables-save shows."""
    return {family: saved.shown for family, saved in LiveKernel(Backend.NFT).look(FAMILIES).items()}


def shown(known: Mapping[Family, Saved] | None) -> Mapping[Family, Ruleset] | None:
    """The same, of a look."""
    if known is None:
        return None
    return {family: saved.shown for family, saved in known.items()}


@pytest.fixture
def kernel(backend: str) -> Iterator[Kernel]:
    """A kernel with RULES, which was looked at, and the handles of whose rules are known."""
    load()
    made = Kernel(Backend(backend), Progress())
    made.look(FAMILIES)
    made.learn_handles()
    made.looks = 0
    yield made
    made.close()


def test_rules_that_go_and_policies_are_known_without_a_look(kernel: Kernel) -> None:
    """Whichever program removes them, one or many, in either family; tables of nft are not those of iptables. A look
    that follows finds the same."""
    for command in KNOWN:
        run(command.format(number=7))
        assert shown(kernel.last_look(FAMILIES)) == truth(), command
    assert kernel.looks == 0
    assert shown(kernel.look(FAMILIES)) == truth()
    assert kernel.defects() == ()


@pytest.mark.parametrize("command", UNKNOWN)
def test_any_other_change_takes_a_look(kernel: Kernel, command: str) -> None:
    """A rule that comes, in whatever way, and a chain or table that changes: it is not known what the kernel holds.
    After a look it is, and then changes are known again."""
    run("ip6tables-nft -N C3")
    kernel.look(FAMILIES)
    run(command.format(number=3))
    assert kernel.last_look(FAMILIES) is None
    kernel.look(FAMILIES)
    kernel.learn_handles()
    run("iptables-nft -D INPUT 2")
    run("ip6tables-nft -P INPUT ACCEPT")
    if "add rule ip filter" not in command:  # It hides the table.
        assert shown(kernel.last_look(FAMILIES)) == truth()
    assert kernel.defects() == ()


def test_changes_in_any_order_are_followed_or_not_known(kernel: Kernel, seed: int) -> None:
    """After random changes, some between a look and the learning of handles, what is known is what is there."""
    chance, followed = random.Random(seed), 0
    for _ in range(STEPS):
        for _ in range(chance.choice((1, 1, 1, 3))):
            run(chance.choice(KNOWN + UNKNOWN[:6]).format(number=chance.randrange(1, 6)))
        known = shown(kernel.last_look(FAMILIES))
        followed += known is not None
        assert known in (None, truth())
        if chance.random() < 0.5:
            kernel.look(FAMILIES)
            if chance.random() < 0.2:
                run("iptables-nft -D INPUT 1")
            kernel.learn_handles()
        if chance.random() < 0.1:
            load()
    assert followed
    assert kernel.defects() == ()


def test_lost_notices_make_all_unknown(kernel: Kernel) -> None:
    """A load that is larger than the socket's buffer: its rules, and those of small changes beside it, are looked at.
    Afterwards changes are followed again."""
    many = "".join(f"-A A -p tcp -m tcp --dport {number} -j DROP\n" for number in range(6_000))
    run("iptables-nft -D INPUT 1")
    load(RULES.replace("-A A -j DROP\n", many))
    run("iptables-nft -D INPUT 1")
    assert kernel.last_look(FAMILIES) is None
    kernel.look(FAMILIES)
    kernel.learn_handles()
    run("iptables-nft -D A 4000")
    assert shown(kernel.last_look(FAMILIES)) == truth()


def test_what_is_known_wrongly_is_a_defect(kernel: Kernel) -> None:
    """If handles were assigned wrongly, the next look reports it, once, and what it shows is what counts."""
    last: LastLooks = kernel._last
    last.handles[Place(Family.IPV4, "filter", "A")].reverse()
    run("iptables-nft -D A 3")
    assert kernel.last_look(FAMILIES) is not None
    assert shown(kernel.look(FAMILIES)) == truth()
    assert [defect.partition(" tables")[0] for defect in kernel.defects()] == ["the ipv4"]
    assert kernel.defects() == ()
    assert shown(kernel.last_look(FAMILIES)) == truth()


def test_without_notices_nothing_is_followed(kernel: Kernel) -> None:
    """If the socket fails, each change takes a look, as before."""
    kernel.close()
    run("iptables-nft -D INPUT 1")
    assert kernel.last_look(FAMILIES) is None
    assert shown(kernel.look(FAMILIES)) == truth()


@pytest.mark.parametrize(
    "command",
    [
        "nft add chain ip filter D",
        "nft add rule ip filter B accept",
        "nft delete table ip mangle",
        "nft add table ip raw",
    ],
)
def test_a_look_has_all_that_the_kernel_lists(kernel: Kernel, command: str) -> None:
    """Whatever the tables hold, a look is whole; one without a rule, or without an empty chain, is not."""
    run("iptables-nft -N empty")
    run(command)
    saved = kernel.look(FAMILIES)[Family.IPV4]
    assert shows_all(saved)
    if "filter" in saved.hidden:
        return
    table = saved.shown.tables["filter"]
    for name in ("B", "empty", "INPUT"):
        chains = dict(table.chains)
        chain = chains.pop(name)
        if chain.rules:
            chains[name] = replace(chain, rules=chain.rules[1:])
        tables = {**saved.shown.tables, "filter": replace(table, chains=chains)}
        assert not shows_all(replace(saved, shown=replace(saved.shown, tables=tables)))
