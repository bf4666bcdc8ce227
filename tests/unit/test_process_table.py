"""The table of processes: bounded, and never wrong about an id that is used again."""

from __future__ import annotations

from fwguardd.kernel.attribution import Author
from fwguardd.kernel.process_table import MOST_AUTHORS, MOST_FORKS, MOST_GENERATIONS, REMEMBERED_FOR, ProcessTable

IPTABLES = Author(50, "iptables", "iptables -F", 0, started=900)


def test_a_process_is_found_by_id_and_name() -> None:
    """Another name under the same id is another process, or another program of it."""
    table = ProcessTable()
    table.add_author(IPTABLES, 1.0)
    assert table.author(50, "iptables", 2.0) is IPTABLES
    assert table.author(50, "nft", 2.0) is None
    assert table.author(51, "iptables", 2.0) is None


def test_a_process_that_was_made_later_replaces_the_one_with_its_id() -> None:
    """A fork that makes an id again, and an exec in the same process, remove what was read under the id."""
    table = ProcessTable()
    table.add_author(IPTABLES, 1.0)
    table.add_fork(50, 40)
    assert table.author(50, "iptables", 2.0) is None
    table.add_author(IPTABLES, 3.0)
    table.forget_author(50)
    assert table.author(50, "iptables", 3.0) is None


def test_what_is_old_is_not_used() -> None:
    """A process that has run for so long is there to be read."""
    table = ProcessTable()
    table.add_author(IPTABLES, 1.0)
    assert table.author(50, "iptables", 1.0 + REMEMBERED_FOR) is IPTABLES
    assert table.author(50, "iptables", 1.1 + REMEMBERED_FOR) is None


def test_the_table_is_bounded() -> None:
    """The oldest entries go first, of authors as of forks."""
    table = ProcessTable()
    for number in range(MOST_AUTHORS + 1):
        table.add_author(Author(10 + number, "nft"), 1.0)
    for number in range(MOST_FORKS + 1):
        table.add_fork(10_000 + number, 4)
    assert len(table) == MOST_AUTHORS + MOST_FORKS
    assert table.author(10, "nft", 1.0) is None
    assert table.author(11, "nft", 1.0) is not None
    assert list(table.ancestors(10_000)) == []
    assert list(table.ancestors(10_001)) == [4]


def test_ancestors_are_listed_upwards() -> None:
    """The parent first; process 1 and the kernel's process 2 say nothing about where a child runs."""
    table = ProcessTable()
    table.add_fork(30, 1)
    table.add_fork(40, 30)
    table.add_fork(50, 40)
    assert list(table.ancestors(50)) == [40, 30]
    assert list(table.ancestors(30)) == []
    assert list(table.ancestors(60)) == []


def test_a_parents_id_that_is_used_again_ends_the_ancestors() -> None:
    """The parent has ended and a younger process has its id: it is no ancestor."""
    table = ProcessTable()
    table.add_fork(40, 30)
    table.add_fork(50, 40)
    table.add_fork(40, 77)
    assert list(table.ancestors(50)) == []


def test_ancestors_are_limited() -> None:
    """A long line of ancestors is cut, and one that leads to itself ends."""
    table = ProcessTable()
    for number in range(10, 10 + 2 * MOST_GENERATIONS):
        table.add_fork(number + 1, number)
    assert len(list(table.ancestors(10 + 2 * MOST_GENERATIONS))) == MOST_GENERATIONS
    table.add_fork(9, 9)
    assert len(list(table.ancestors(9))) <= MOST_GENERATIONS


def test_after_a_loss_nothing_is_known() -> None:
    """Once events were lost, any id may be that of another process."""
    table = ProcessTable()
    table.add_author(IPTABLES, 1.0)
    table.add_fork(50, 40)
    table.clear()
    assert len(table) == 0
