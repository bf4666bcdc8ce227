"""One booted bed for all tests of a module, with fwguardd installed and started in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.netns.namespaces import OUTSIDE, SYSCTL
from tests.scale import SCALE
from tests.system.bed import Bed, Guarded
from tests.system.installed import installed_layer
from tests.system.roots import pristine_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

collect_ignore: list[str] = []
if SCALE != "long":
    collect_ignore.append("test_ansible.py")  # It takes minutes.


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A bed with fwguardd installed as its package would, not yet booted: nothing is enabled or started."""
    with Bed(pristine_root(), tmp_path_factory.mktemp("bed"), installed_layer()) as bed:
        yield bed


@pytest.fixture(scope="module")
def unguarded(machine: Bed) -> Guarded:
    """The bed with rules and settings of its own, still off."""
    return Guarded(machine, f"bed {os.getpid()} denied: ")


@pytest.fixture(scope="module")
def guarded(unguarded: Guarded) -> Guarded:
    """The bed booted, and fwguardd started by hand, every directive of its units in force."""
    unguarded.bed.boot()
    unguarded.bed.run("systemctl start fwguardd")
    return unguarded


@pytest.fixture
def kernel_log_of_namespaces() -> Iterator[Callable[[], None]]:
    """LOG lines of network namespaces reach the kernel log; call it right before sending. Put back afterwards."""
    before = OUTSIDE.submit(SYSCTL.read_text).result()

    def switch_on() -> None:
        OUTSIDE.submit(SYSCTL.write_text, "1").result()

    switch_on()
    yield switch_on
    OUTSIDE.submit(SYSCTL.write_text, before).result()
