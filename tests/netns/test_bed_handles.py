"""The handles of a bed's rules on a real kernel: they are known after an edit, or no edit is made any more."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel.bed_handles import BedHandles
from fwguardd.kernel.bed_hooks import install_hooks
from fwguardd.kernel.bed_network import BedNetwork
from fwguardd.kernel.bed_sender import Tap
from fwguardd.kernel.rule_bytes import rules_of
from fwguardd.kernel.rule_dumps import chain_names
from tests.netns.test_bed import ROUTER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.kernel.bed_edits import EditDocument

pytestmark = pytest.mark.root

PORTS = (22, 25, 80)
INPUT = chain_names("filter", "INPUT")


@pytest.fixture
def handles() -> Iterator[BedHandles]:
    """Those of three rules in one chain of IPv4."""
    load("*filter", *(f"-A INPUT -s 192.0.2.1 -p tcp --dport {port} -j ACCEPT" for port in PORTS), "COMMIT")
    made = BedHandles()
    made.learn()
    yield made
    made.close()


def load(*lines: str) -> None:
    """Load lines with iptables-nft-restore, beside what is there."""
    text = "\n".join(lines) + "\n"
    subprocess.run(["iptables-nft-restore", "--noflush"], input=text, text=True, check=True)


def positions(handles: BedHandles) -> list[int]:
    """The positions that are known of the rules of the chain, in the order in which the kernel lists them."""
    return [handles.position(2, *INPUT, rule.handle.to_bytes(8, "big")) for rule in rules_of(4) or ()]


def moved_to_the_end() -> EditDocument:
    """An edit that removes the first rule and writes it again behind the others."""
    first = (rules_of(4) or [])[0]
    return 4, "filter", "INPUT", [[1, 3], first.expressions.hex()], (3, 3)


def printed() -> list[str]:
    """The rules that iptables-save prints."""
    done = subprocess.run(["iptables-nft-save"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if line.startswith("-A")]


def test_handles_are_known_after_edits(handles: BedHandles) -> None:
    """Each rule has the position in which iptables-save prints it, after one edit and after the next."""
    first = printed()
    assert positions(handles) == [1, 2, 3]
    for number in (1, 2):
        assert handles.edit([moved_to_the_end()])
        assert printed() == first[number:] + first[:number]
        assert positions(handles) == [1, 2, 3]
    assert handles.position(2, *INPUT, bytes(8)) == 0


def test_a_refused_edit_changes_nothing(handles: BedHandles) -> None:
    """What the kernel does not take is left to iptables, and the next edit is as good as ever."""
    before = printed()
    assert not handles.edit([(4, "filter", "INPUT", [[0, 3], b"\x0c\0\1\0\x08\0\1\0odd\0".hex()], (3, 4))])
    assert printed() == before
    assert positions(handles) == [1, 2, 3]
    assert handles.edit([moved_to_the_end()])


def test_a_commit_of_another_ends_the_use(handles: BedHandles) -> None:
    """After a commit that was not told of no edit is made; after one that was told of, it is."""
    install_hooks()
    handles.pass_over_commit()
    assert handles.edit([moved_to_the_end()])
    document, before = moved_to_the_end(), printed()
    load("*filter", "-A FORWARD -j ACCEPT", "COMMIT")
    with pytest.raises(OSError, match="otherwise"):
        handles.edit([document])
    assert printed()[: len(before)] == before
    handles.learn()
    assert handles.edit([document])


def test_a_sender_tells_of_its_commits(handles: BedHandles) -> None:
    """Where frames come from a TAP device, the first one for an interface is a commit; edits are made after it too."""
    network = BedNetwork(ROUTER)
    tap = Tap(network, handles.pass_over_commit)
    handles.learn()
    for _ in range(2):
        for name in ("lo", "eth0"):
            tap.send(network.index(name), bytes(12) + b"\x08\0" + bytes(46), 0)
        assert handles.edit([moved_to_the_end()])
    os.close(tap._device)
    network.close()


def test_an_edit_for_another_chain_ends_the_use(handles: BedHandles) -> None:
    """A chain with another number of rules than the edit was made for, or none, is not edited."""
    number, table, chain, pieces, lengths = moved_to_the_end()
    for document in ((number, table, chain, pieces, (4, 3)), (number, table, "OUTPUT", pieces, lengths)):
        with pytest.raises(OSError, match="otherwise"):
            handles.edit([document])
