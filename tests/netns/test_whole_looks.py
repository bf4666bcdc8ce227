"""iptables-save exits with 0 where its output could not be written, and what it did print is then taken for nothing.

Programs in its place print less than all, once or always, on both backends; what the kernel holds stays as it is.
"""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.transaction import Applied, Unchanged, UndoneError, Unverified, find_drift, put_in_force
from fwguardd.kernel import iptables, nft_tables, other_tables, processes
from fwguardd.kernel.iptables import Backend, LiveKernel, LookIncompleteError
from fwguardd.ruleset.canonical import Emptying
from fwguardd.ruleset.model import FAMILIES, Family
from tests.contract.test_transaction import FIRST, PRESERVE, SECOND, rehearsed

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from fwguardd.ruleset.canonical import Canonical

pytestmark = pytest.mark.root

LIES = {
    "full output": 'exec {program} "$@" >/dev/full',
    "nothing": "exit 0",
    "no COMMIT": "{program} \"$@\" | sed '/^COMMIT/d'",
    "no last COMMIT": "{program} \"$@\" | sed '$d' | sed '$d'",
    "half a line": '{program} "$@" | head -c 300',
    "a table less": "{program} \"$@\" | sed '/^\\*mangle/,/^COMMIT/d'",
    "garbage": '{program} "$@" | tr a-m n-z',
    "killed": "kill -9 $$",
}
"""Programs that exit with 0, or are killed, and do not print all."""


class Liar:
    """Programs in place of iptables-save and ip6tables-save, which count how often they run."""

    def __init__(self, folder: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._backend = folder, backend
        self._honest = processes.PATH
        monkeypatch.setattr(processes, "PATH", f"{folder}:{processes.PATH}")

    def lie(self, script: str, *, first: int = 1, times: int = 10**6) -> None:
        """From now on the runs from ``first`` on print what the script says, so many times."""
        for family in ("iptables", "ip6tables"):
            name = f"{family}-{self._backend}-save"
            count = self._folder / f"{name}.count"
            count.write_text("0")
            program = f"/usr/sbin/{name}"
            file = self._folder / name
            file.write_text(
                f"#!/bin/sh\nn=$(($(cat {count}) + 1)); echo $n >{count}\n"
                f"if [ $n -ge {first} ] && [ $n -lt {first + times} ]; then\n{script.format(program=program)}\n"
                f'else exec {program} "$@"\nfi\n'
            )
            file.chmod(0o755)

    @property
    def runs(self) -> int:
        """How often iptables-save ran for IPv4."""
        return int((self._folder / f"iptables-{self._backend}-save.count").read_text())


@pytest.fixture
def liar(tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> Liar:
    """The programs, which tell the truth until they are asked to lie. No look waits."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    monkeypatch.setattr(iptables, "LOOK_WAITS", (0.0, 0.0))
    return Liar(tmp_path, backend, monkeypatch)


def truth(backend: str) -> list[str]:
    """What the kernel holds, read by the real programs."""
    lines: list[str] = []
    for family in ("iptables", "ip6tables"):
        saved = subprocess.run([f"/usr/sbin/{family}-{backend}-save"], capture_output=True, text=True, check=True)
        lines += [line for line in saved.stdout.splitlines() if line.startswith(("*", "-A", ":"))]
    return [line.partition(" [")[0] for line in lines]


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_look_that_is_never_whole_changes_nothing(liar: Liar, backend: str, lie: str) -> None:
    """Neither drift nor emptiness is seen in it, nothing is written because of it, and the error has its own type."""
    kernel = LiveKernel(Backend(backend))
    put_in_force(kernel, FIRST, PRESERVE)
    before = truth(backend)
    liar.lie(lie)
    with pytest.raises(LookIncompleteError):
        kernel.look(FAMILIES)
    with pytest.raises(LookIncompleteError):
        find_drift(kernel, FIRST, PRESERVE)
    for release in (None, Emptying.for_release(FIRST.owned, SECOND.owned, FIRST.closed_policies)):
        with pytest.raises(LookIncompleteError):
            put_in_force(kernel, SECOND, PRESERVE, release)
    assert truth(backend) == before


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_look_that_is_not_whole_once_is_made_again(liar: Liar, backend: str, lie: str) -> None:
    """Whichever look of a transaction it is: the transaction does what it does without it."""
    kernel = LiveKernel(Backend(backend))
    for first in (1, 2):
        put_in_force(kernel, FIRST, PRESERVE)
        liar.lie(lie, first=first, times=1)
        assert isinstance(put_in_force(kernel, SECOND, PRESERVE), Applied)
        assert find_drift(kernel, SECOND, PRESERVE) == ()
        assert liar.runs >= 3


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_an_undo_does_not_restore_emptiness(liar: Liar, backend: str, lie: str) -> None:
    """A load that cannot be read back stays; one that was refused is undone to what was there."""
    kernel = LiveKernel(Backend(backend))
    put_in_force(kernel, FIRST, PRESERVE)
    liar.lie(lie, first=2)
    assert isinstance(put_in_force(kernel, SECOND, PRESERVE), Unverified)
    liar.lie('exec {program} "$@"')
    assert find_drift(kernel, SECOND, PRESERVE) == ()
    before = truth(backend)
    liar.lie(lie, first=2, times=1)
    with pytest.raises(UndoneError):
        put_in_force(kernel, rehearsed("-A INPUT -j ACCEPT\n*nat\n-A POSTROUTING -p icmp -j nowhere\n"), PRESERVE)
    assert truth(backend) == before


MARKED = rehearsed("*mangle\n-A INPUT -j MARK --set-xmark 0x7/0xffffffff\n-A OUTPUT -j ACCEPT\n")


@pytest.mark.parametrize("wanted", [FIRST, MARKED], ids=["a change", "a repair"])
def test_a_rule_that_is_shown_wrong_once(liar: Liar, backend: str, wanted: Canonical) -> None:
    """iptables-save prints a target's options wrong where it could not ask the kernel for the target's revision. What
    is planned with that is refused, and planned anew: it is neither the end of the change nor restored by an undo."""
    put_in_force(LiveKernel(Backend(backend)), MARKED, PRESERVE)
    subprocess.run([f"ip6tables-{backend}", "-t", "mangle", "-D", "OUTPUT", "1"], check=True)
    liar.lie("{program} \"$@\" | sed 's/--set-xmark.*/--set-mark 0x700000001/'", times=1)
    assert isinstance(put_in_force(LiveKernel(Backend(backend)), wanted, PRESERVE), Applied)
    assert find_drift(LiveKernel(Backend(backend)), wanted, PRESERVE) == ()


@pytest.mark.parametrize("first", [1, 2])
def test_the_first_look_of_all_is_checked(liar: Liar, backend: str, first: int) -> None:
    """One that leaves out the rules of a chain, as a read that failed inside iptables-save does, is no drift: it is
    taken twice, on nf_tables only where the kernel lists another number of rules."""
    put_in_force(LiveKernel(Backend(backend)), FIRST, PRESERVE)
    liar.lie("{program} \"$@\" | sed '/-A INPUT/d'", first=first, times=1)
    assert find_drift(LiveKernel(Backend(backend)), FIRST, PRESERVE) == ()
    assert liar.runs == {("nft", 2): 1}.get((backend, first), 2)


def test_fewer_rules_than_at_the_last_look_are_checked(liar: Liar, backend: str) -> None:
    """One look that shows fewer rules is no drift; where the second shows the same, or the kernel lists as many, it is
    believed."""
    kernel = LiveKernel(Backend(backend))
    put_in_force(kernel, FIRST, PRESERVE)
    liar.lie("{program} \"$@\" | sed '/ lo /d'", times=1)
    assert find_drift(kernel, FIRST, PRESERVE) == ()
    assert liar.runs == 2
    subprocess.run([f"iptables-{backend}", "-F", "INPUT"], check=True)
    assert len(find_drift(kernel, FIRST, PRESERVE)) == 1
    assert len(find_drift(kernel, FIRST, PRESERVE)) == 1
    assert liar.runs == {"nft": 4, "legacy": 5}[backend]


def test_what_is_not_there_is_absent(backend: str) -> None:
    """A fresh kernel has no tables, and both families are read as empty; a table without a chain is there."""
    kernel = LiveKernel(Backend(backend))
    assert all(saved.shown.tables == {} for saved in kernel.look(FAMILIES).values())
    if backend == "nft":
        subprocess.run(["nft", "add table ip filter; add table ip mine; add table inet nat"], check=True)
        assert set(kernel.look([Family.IPV4])[Family.IPV4].shown.tables) == {"filter"}
        assert nft_tables.nft_table_names(Family.IPV4) == {"filter"}
    assert isinstance(put_in_force(kernel, FIRST, PRESERVE), Applied)
    assert isinstance(put_in_force(kernel, FIRST, PRESERVE), Unchanged)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EPERM, errno.EAFNOSUPPORT])
def test_only_a_kernel_without_netlink_has_no_nf_tables(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other failure to open a socket is an error, not an absence of tables."""

    def fail(*_: object) -> socket.socket:
        raise OSError(number, os.strerror(number))

    subprocess.run(["nft", "add table ip filter"], check=True)
    monkeypatch.setattr(nft_tables, "open_socket", fail)
    if number == errno.EAFNOSUPPORT:
        assert nft_tables.nft_table_names(Family.IPV4) == frozenset()
        assert other_tables.nft_tables(of_iptables=True) == ()
    else:
        with pytest.raises(OSError, match=os.strerror(number)):
            nft_tables.nft_table_names(Family.IPV4)
        with pytest.raises(OSError, match=os.strerror(number)):
            other_tables.nft_tables(of_iptables=True)
