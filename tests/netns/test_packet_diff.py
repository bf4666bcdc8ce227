"""Which packets a change treats otherwise: the witnesses of real changes, sent through both rulesets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fwguardd.ctl.beds import HostBeds
from fwguardd.ctl.packet_diff import Compared, packet_diff
from fwguardd.kernel.iptables import Backend, find_tool
from fwguardd.kernel.namespaces import NamespacePool
from tests.golden.test_changes import PAIRS, rulesets_of, sections
from tests.proofs import HOST
from tests.scale import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def beds() -> Iterator[HostBeds]:
    """Beds with the network of the host of the pairs."""
    pool = NamespacePool(spares=1, for_beds=True)
    pool.refill()
    yield HostBeds(HOST, find_tool(Backend.NFT), pool)
    pool.close()


@pytest.mark.long
@pytest.mark.parametrize("path", PAIRS[:: scaled(8, 1)], ids=lambda path: path.stem)
def test_the_kernel_treats_witnesses_as_the_model_says(path: Path, beds: HostBeds) -> None:
    """No witness of a real change is contradicted by the kernel, and most of them are decided by the rules."""
    rules = sections(path)
    before, after = rulesets_of("before.rules", rules["before"]), rulesets_of("after.rules", rules["after"])
    found = packet_diff(Compared(before, after, ()), beds)
    assert found.is_complete
    assert [(each.sentence, each.witness, sent.words) for each, sent in found.classes if sent.is_contradiction] == []
    decided = [sent.words for each, sent in found.classes if each.can_be_sent]
    assert all(words.startswith("sent through both") for words in decided[:1]), decided
