"""The timetable: when a pass is due."""

from __future__ import annotations

from fwguardd.enforce.guard import LONGEST_RETRY, Due, Timetable


def _after_a_pass(*, wrote: bool = False, again: bool = False) -> Timetable:
    timetable = Timetable(settle=0.2, settle_max=2.0, interval=60.0)
    timetable.pass_begins()
    timetable.pass_ended(100.0, wrote=wrote, again=again)
    return timetable


def test_a_burst_is_one_pass_after_quiet() -> None:
    """A pass is due settle after the last notice, not after the first."""
    timetable = _after_a_pass()
    for when in (101.0, 101.1, 101.25):
        timetable.notice(when)
    timetable.looked_ahead()
    assert timetable.due(101.4) is None
    assert timetable.due(101.46) is Due.CHANGE


def test_a_burst_without_end_is_not_waited_for() -> None:
    """A pass is due settle_max after the first notice, however many come."""
    timetable = _after_a_pass()
    for tick in range(100):
        timetable.notice(101.0 + tick * 0.1)
    timetable.looked_ahead()
    assert timetable.due(103.0) is Due.CHANGE


def test_the_files_are_judged_ahead_once_in_each_quiet() -> None:
    """A quarter into the quiet there is time to look ahead; again only after another notice."""
    timetable = _after_a_pass()
    timetable.notice(101.0)
    assert timetable.due(101.04) is None
    assert timetable.due(101.06) is Due.LOOK_AHEAD
    timetable.looked_ahead()
    assert timetable.due(101.07) is None
    timetable.notice(101.1)
    assert timetable.due(101.16) is Due.LOOK_AHEAD


def test_after_a_write_it_looks_again_soon() -> None:
    """After a write the kernel is looked at after 1, 2 and 4 seconds, then once in an interval."""
    timetable = _after_a_pass(wrote=True)
    waits = []
    now = 100.0
    for _ in range(4):
        waits.append(timetable.wait(now))
        now += waits[-1]
        assert timetable.due(now) is Due.TIMER
        timetable.pass_begins()
        timetable.pass_ended(now, wrote=False, again=False)
    assert waits == [1.0, 2.0, 4.0, 60.0]


def test_failures_that_may_pass_are_tried_again_with_growing_waits() -> None:
    """Each further failure doubles the wait, up to a minute; a success starts over."""
    timetable = Timetable(settle=0.2, settle_max=2.0, interval=86400.0)
    waits = []
    for _ in range(9):
        timetable.pass_begins()
        timetable.pass_ended(100.0, wrote=False, again=True)
        waits.append(timetable.wait(100.0))
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == LONGEST_RETRY
    timetable.pass_begins()
    timetable.pass_ended(100.0, wrote=False, again=False)
    assert timetable.wait(100.0) == 86400.0


def test_a_notice_during_a_pass_is_for_the_next_one() -> None:
    """What changes while a pass runs is never lost: the mark is cleared before the files are read."""
    timetable = _after_a_pass()
    timetable.notice(101.0)
    timetable.pass_begins()
    timetable.notice(101.5)
    timetable.pass_ended(101.6, wrote=True, again=False)
    timetable.looked_ahead()
    assert timetable.due(101.71) is Due.CHANGE


def test_a_settle_time_of_nothing_is_no_wait() -> None:
    """With settle 0 the pass itself is due at once, and there is nothing to look ahead for."""
    timetable = Timetable(settle=0.0, settle_max=0.0, interval=60.0)
    timetable.pass_ended(100.0, wrote=False, again=False)
    timetable.notice(101.0)
    assert timetable.due(101.0) is Due.CHANGE
