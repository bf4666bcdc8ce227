"""Every system call of a transaction fails, once and from then on, with the real programs of both backends.

After each fault both families hold one ruleset whole; and where the fault lasts so long that this cannot be achieved,
the transaction says so, and they do as soon as it has ended.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fwguardd.enforce import transaction
from fwguardd.enforce.transaction import UndoDelayedError, UndoneError, put_in_force
from fwguardd.kernel import iptables
from fwguardd.kernel.iptables import Backend, KernelError, LiveKernel
from fwguardd.kernel.processes import Reserve
from fwguardd.ruleset.diff import compare
from fwguardd.ruleset.model import FAMILIES, Family
from tests.contract.test_transaction import FIRST, PRESERVE, SECOND
from tests.netns.namespaces import fresh_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.ruleset.canonical import Canonical

pytestmark = pytest.mark.root

CALLS: list[tuple[Any, str, int]] = [
    (os, "posix_spawn", errno.EAGAIN),
    (os, "memfd_create", errno.ENOMEM),
    (os, "write", errno.ENOSPC),
    (os, "pidfd_open", errno.EMFILE),
    (os, "pread", errno.EIO),
    (os, "open", errno.ENFILE),
    (select, "poll", errno.ENOMEM),
    (socket, "socket", errno.ENFILE),
]


class Fault:
    """A call that fails with an error number when it is made for the n-th time, or from then on."""

    def __init__(self, call: Any, number: int, nth: int, *, lasting: bool) -> None:
        self._call, self._number, self._nth, self._lasting = call, number, nth, lasting
        self.made = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Fail, or do what is asked."""
        self.made += 1
        if self.made == self._nth or (self._lasting and self.made > self._nth):
            raise OSError(self._number, os.strerror(self._number))
        return self._call(*args, **kwargs)


@contextmanager
def failing(where: Any, name: str, number: int, nth: int, *, lasting: bool) -> Iterator[Fault]:
    """A system call that fails within."""
    fault = Fault(getattr(where, name), number, nth, lasting=lasting)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, fault)
        yield fault


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits between tries."""
    monkeypatch.setattr(transaction, "RETRY_WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(iptables, "LOOK_WAITS", (0.0, 0.0))


def holds(kernel: LiveKernel, wanted: Canonical) -> bool:
    """Whether both families hold this ruleset."""
    live = kernel.look(FAMILIES)
    return all(not compare(ruleset, live[family].shown) for family, ruleset in wanted.rulesets.items())


def descriptors() -> set[str]:
    """The descriptors of this process."""
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


CASES = [(backend, *call) for backend in ("nft", "legacy") for call in CALLS if call[0] is not socket]
CASES.append(("nft", *CALLS[-1]))  # Legacy iptables is asked for its tables without a socket.


@pytest.mark.parametrize(
    ("backend", "where", "name", "number"), CASES, ids=[f"{c[0]}-{c[2]}-{errno.errorcode[c[3]]}" for c in CASES]
)
def test_a_call_that_fails_leaves_one_ruleset(
    backend: str, where: Any, name: str, number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whichever call fails: what was wanted, or what was before, is there in both families, and no descriptor leaks."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    with fresh_namespace():
        kernel = LiveKernel(Backend(backend))
        put_in_force(kernel, FIRST, PRESERVE)
        with failing(where, name, number, 10**6, lasting=False) as counted:
            put_in_force(kernel, SECOND, PRESERVE)
        before = descriptors()
        assert counted.made
        delayed = 0
        for nth in range(1, counted.made + 1):
            for lasting in (False, True):
                put_in_force(kernel, FIRST, PRESERVE)
                raised: BaseException | None = None
                try:
                    with failing(where, name, number, nth, lasting=lasting):
                        put_in_force(kernel, SECOND, PRESERVE)
                except (KernelError, UndoneError, UndoDelayedError) as error:
                    raised = error
                if isinstance(raised, UndoDelayedError):
                    assert lasting, "a fault that came once was not undone"
                    delayed += 1
                elif raised is not None:
                    assert holds(kernel, FIRST), f"call {nth}, lasting {lasting}: {raised}"
                else:
                    assert holds(kernel, SECOND), f"call {nth}, lasting {lasting}"
                assert descriptors() == before
        with suppress(UndoDelayedError):
            put_in_force(kernel, FIRST, PRESERVE)
        assert holds(kernel, FIRST)


class Exhausting(LiveKernel):
    """A kernel whose second load finds that this process has no descriptors left."""

    loads = 0

    def restore(self, family: Family, text: str) -> None:
        """Load a text; before the second one, take all descriptors that are left."""
        self.loads += 1
        if self.loads == 2:
            highest = max(int(number) for number in descriptors())
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            with suppress(OSError):
                while True:
                    self.taken.append(os.open("/dev/null", os.O_RDONLY))
        super().restore(family, text)

    taken: list[int]


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_an_undo_has_the_descriptors_that_it_needs(
    backend: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They are had before the first load: where none can be had in the middle, what was loaded is undone at once."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with fresh_namespace():
        put_in_force(LiveKernel(Backend(backend)), FIRST, PRESERVE)
        kernel = Exhausting(Backend(backend))
        kernel.taken = []
        try:
            with pytest.raises(UndoneError, match="Too many open files"):
                put_in_force(kernel, SECOND, PRESERVE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for number in kernel.taken:
                os.close(number)
        assert kernel.taken
        assert holds(LiveKernel(Backend(backend)), FIRST)


def test_the_reserve_is_not_touched() -> None:
    """What is held in reserve for an undo is address space: no memory is behind it, so it costs none."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    reserve = Reserve()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    reserve.give_back()
    assert faults < 100
