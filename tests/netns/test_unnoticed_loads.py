"""Large loads of our own, of which the kernel gives no notices: what others do meanwhile is still noticed."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel.changes import Change, ChangeReader, Noticing
from fwguardd.kernel.generations import Generation, GenerationNotices, Missed, current_generation
from fwguardd.kernel.iptables import Backend, RestoreRefusedError
from fwguardd.kernel.last_looks import present
from fwguardd.kernel.process_watch import ProcessWatch
from fwguardd.progress import MANY_LINES, MarkingKernel, Progress
from fwguardd.ruleset.model import FAMILIES, Family
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES = "".join(f"-A INPUT -s 192.0.2.{number % 256} -j ACCEPT\n" for number in range(MANY_LINES))
LARGE = f"*filter\n{RULES}COMMIT\n*nat\n:OTHER -\nCOMMIT\n*mangle\n:THIRD -\n-A THIRD -j RETURN\nCOMMIT\n"
OTHER = "iptables-nft -A OUTPUT -s 192.0.2.1/32 -j ACCEPT"


class Noticed:
    """A kernel, and what is noticed of its changes."""

    def __init__(self, notices: GenerationNotices, watch: ProcessWatch) -> None:
        self.changes: list[Change] = []
        self.failures: list[Exception] = []
        self.noticing = Noticing()
        self.kernel = MarkingKernel(Backend.NFT, Progress(), noticing=self.noticing)
        self.reader = ChangeReader(notices, watch, self.changes.extend, self.failures.append, self.kernel.wrote)
        self.noticing.reader = self.reader

    def next_is_of_another(self) -> bool:
        """Whether another program changes something now, and that is the only thing that was noticed."""
        subprocess.run(OTHER.split(), check=True)
        wait_until(lambda: bool(self.changes), "the notice")
        noticed = self.changes.pop(0).notice
        return isinstance(noticed, Generation) and not self.changes and noticed.number == current_generation()


@pytest.fixture
def noticed() -> Iterator[Noticed]:
    """A reader of the changes of this namespace."""
    with GenerationNotices() as notices, ProcessWatch(lambda: None) as watch:
        made = Noticed(notices, watch)
        with made.reader:
            yield made
        made.kernel.close()


def test_a_large_load_is_not_noticed(noticed: Noticed) -> None:
    """Each COMMIT of the text is one commit of nf_tables, so it is known that nobody else has written. What another
    program does afterwards is noticed."""
    before = current_generation()
    noticed.kernel.restore(Family.IPV4, LARGE)
    assert current_generation() == before + 3
    assert noticed.next_is_of_another()


def test_a_small_load_is_noticed_as_ours(noticed: Noticed) -> None:
    """The notice has the process, which is one of ours."""
    noticed.kernel.restore(Family.IPV4, "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n")
    wait_until(lambda: bool(noticed.changes), "the notice")
    notice = noticed.changes[0].notice
    assert isinstance(notice, Generation)
    assert noticed.kernel.wrote(notice.pid)


def test_a_change_by_another_program_meanwhile_is_one_by_an_unknown_process(noticed: Noticed) -> None:
    """There are more commits than ours."""
    with noticed.reader.unnoticed(1):
        noticed.kernel.restore(Family.IPV4, "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n")
        subprocess.run(OTHER.split(), check=True)
    assert noticed.changes.pop() == Change(Missed(), None)
    assert noticed.next_is_of_another()


def test_after_a_load_that_failed_changes_are_noticed(noticed: Noticed) -> None:
    """As not all commits have come, it counts as a change too: the kernel is compared."""
    with pytest.raises(RestoreRefusedError):
        noticed.kernel.restore(Family.IPV4, f"{LARGE}*filter\n-A NOT_THERE -j ACCEPT\nCOMMIT\n")
    assert noticed.changes.pop() == Change(Missed(), None)
    assert noticed.next_is_of_another()


def test_a_change_by_another_program_meanwhile_does_not_stand_for_a_commit_that_failed(noticed: Noticed) -> None:
    """There are as many commits as there were to be, but not all of them are ours."""

    def load() -> None:
        with noticed.reader.unnoticed(2):
            subprocess.run(OTHER.split(), check=True)
            noticed.kernel.restore(Family.IPV4, "*nat\n:OTHER -\nCOMMIT\n*filter\n-A NOT_THERE -j ACCEPT\nCOMMIT\n")

    with pytest.raises(RestoreRefusedError):
        load()
    assert noticed.changes.pop() == Change(Missed(), None)
    assert noticed.next_is_of_another()


def test_what_was_known_of_rules_is_learnt_anew_after_a_large_load(noticed: Noticed) -> None:
    """Handles are not followed over it: the notices of which rules came and went are left out too."""
    kernel = noticed.kernel
    kernel.look(FAMILIES)
    kernel.learn_handles()
    kernel.restore(Family.IPV4, LARGE)
    assert (dict(kernel._last.handles), kernel._last.notices) == ({}, None)
    kernel.look(FAMILIES)
    kernel.learn_handles()
    subprocess.run(["iptables-nft", "-D", "INPUT", "3"], check=True)
    known = kernel._last.at([Family.IPV4], present("nft"))
    assert known is not None
    assert len(known[Family.IPV4].shown.tables["filter"].chains["INPUT"].rules) == MANY_LINES - 1


def test_where_the_group_cannot_be_joined_again_notices_are_lost(
    noticed: Noticed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is reported as ever; the load goes on."""

    def fail(_: GenerationNotices) -> int:
        raise OSError(5, "no memory")

    monkeypatch.setattr(GenerationNotices, "join", fail)
    noticed.kernel.restore(Family.IPV4, LARGE)
    assert [str(failure) for failure in noticed.failures] == ["[Errno 5] no memory"]
    monkeypatch.setattr(GenerationNotices, "leave", fail)
    noticed.kernel.restore(Family.IPV4, f"*filter\n{RULES}COMMIT\n")


def test_a_load_during_and_after_the_end_of_the_reader_goes_on() -> None:
    """The daemon ends while the worker thread loads."""
    with GenerationNotices() as notices, ProcessWatch(lambda: None) as watch:
        made = Noticed(notices, watch)
        with contextlib.ExitStack() as load:
            with made.reader:
                load.enter_context(made.reader.unnoticed(3))
            subprocess.run(OTHER.split(), check=True)
        with made.reader.unnoticed(3):
            subprocess.run(OTHER.split(), check=True)
    assert (made.changes, made.failures) == ([], [])
