"""Thousands of rules are taken out of a chain on both backends: counted in programs run, and with packets that arrive.

iptables-nft-restore searches each rule that is deleted by its text from the head of the chain on, so that 8,000 of
10,000 never went in time. The gate takes a fifth of them, and counts such deletions.
"""

from __future__ import annotations

import re
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.transaction import Applied, find_drift, put_in_force
from fwguardd.kernel import iptables
from fwguardd.kernel.iptables import Backend, LiveKernel
from fwguardd.ruleset.preserve import Preserve
from tests.contract.test_transaction import rehearsed
from tests.scale import scaled
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from pathlib import Path

    from fwguardd.ruleset.canonical import Canonical
    from fwguardd.ruleset.model import Family

pytestmark = [pytest.mark.root, pytest.mark.long]

PRESERVE = Preserve.from_patterns(["f2b-*"])
KEPT, ALL = scaled(gate=400, long=2_000), scaled(gate=2_000, long=10_000)
MOST_COMPARISONS = 200_000
"""Comparisons of rules in a step. To delete each rule where it stands, by its text, would take 640,000 in each family
of the gate's size."""

BY_TEXT = re.compile(r"^-D INPUT (-.*)", re.MULTILINE)
THEIR_PLACE = KEPT // 2
THEIRS = (
    f"*filter\n:f2b-ssh - [0:0]\n-I INPUT {THEIR_PLACE + 1} -p tcp -j f2b-ssh\n[7:700] -A f2b-ssh -j RETURN\nCOMMIT\n"
)


class Counted(LiveKernel):
    """A kernel that counts the programs that load, and the rules that they have to search."""

    loads = comparisons = 0

    def restore(self, family: Family, text: str) -> None:
        """Load, and count."""
        self.loads += 1
        (saved,) = self.look((family,)).values()
        filtered = saved.shown.tables.get("filter")
        rules = [rule.text for rule in filtered.chains["INPUT"].rules] if filtered else []
        for deleted in BY_TEXT.findall(text):
            place = rules.index(deleted)
            self.comparisons += place + 1
            del rules[place]
        super().restore(family, text)


def ruleset(count: int, *, last: str = "-i lo -j ACCEPT") -> Canonical:
    """So many rules that no packet of the test matches, and a last one that does."""
    rules = [f"-A INPUT -i eth{n % 100} -p udp -m udp --dport {n + 1} -j DROP\n" for n in range(count)]
    return rehearsed("-P INPUT DROP\n" + "".join(rules) + f"-A INPUT {last}\n")


@pytest.mark.parametrize("theirs", [False, True], ids=["ours alone", "with rules of others"])
def test_thousands_of_rules_go_in_one_load_for_each_family(
    backend: str,
    theirs: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """No load runs out of time, so none is repeated, and few rules are compared to find those that go; the counters of
    what stays and the rules of others are kept."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    monkeypatch.setattr(iptables, "PROGRAM_SECONDS", 20.0)
    kernel = Counted(Backend(backend))
    put_in_force(kernel, ruleset(ALL), PRESERVE)
    if theirs:
        for family in ruleset(1).rulesets:
            kernel.restore(family, THEIRS)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(6):
            sender.sendto(b"probe", ("127.0.0.1", 65001))
    for wanted in (ruleset(KEPT), ruleset(ALL), ruleset(0)):
        kernel.loads = kernel.comparisons = 0
        assert isinstance(put_in_force(kernel, wanted, PRESERVE), Applied)
        assert kernel.loads == len(wanted.rulesets)
        assert kernel.comparisons <= MOST_COMPARISONS
        assert find_drift(kernel, wanted, PRESERVE) == ()
        for family, saved in kernel.look(tuple(wanted.rulesets)).items():
            chains = saved.shown.tables["filter"].chains
            if family.number == 4:
                assert chains["INPUT"].rules[-1].counters.packets >= 6
                assert not theirs or chains["f2b-ssh"].rules[0].counters.packets == 7
            if theirs:
                here = [rule.text for rule in chains["INPUT"].rules].index("-p tcp -j f2b-ssh")
                assert here == min(THEIR_PLACE, len(wanted.rulesets[family].tables["filter"].chains["INPUT"].rules) - 1)


def test_no_packet_passes_while_a_chain_is_written_anew(
    backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The deletions and what is written again are one transaction: what is accepted arrives, what is dropped never."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    kernel = LiveKernel(Backend(backend))
    accepted = "-i lo -p udp -m udp --dport 65001 -j ACCEPT"
    put_in_force(kernel, ruleset(ALL, last=accepted), PRESERVE)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as good,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bad,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        good.bind(("127.0.0.1", 65001))
        bad.bind(("127.0.0.1", 65002))
        good.settimeout(LONGEST)
        bad.setblocking(False)  # noqa: FBT003
        ended = threading.Event()

        sent = 0
        outcomes: list[object] = []

        def load() -> None:
            few, many = ruleset(KEPT, last=accepted), ruleset(ALL, last=accepted)
            outcomes.extend(put_in_force(kernel, wanted, PRESERVE) for wanted in (few, many, few))
            while sent <= 10 and set(map(type, outcomes)) == {Applied}:
                outcomes.extend(put_in_force(kernel, wanted, PRESERVE) for wanted in (many, few))
            ended.set()

        thread = threading.Thread(target=load)
        thread.start()
        while not ended.is_set():
            for port in (65001, 65002):
                sender.sendto(b"probe", ("127.0.0.1", port))
            assert good.recv(100) == b"probe"
            sent += 1
        thread.join()
        assert sent > 10 and [type(outcome) for outcome in outcomes] == [Applied] * len(outcomes)
        with pytest.raises(BlockingIOError):
            bad.recv(100)
