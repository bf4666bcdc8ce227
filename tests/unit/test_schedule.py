"""The timetable: when a pass is due."""

from __future__ import annotations

from fwguardd.enforce.context import Done, Failed, to_look_at
from fwguardd.enforce.schedule import (
    LONGEST_GAP,
    LONGEST_RETRY,
    LONGEST_UNDO_RETRY,
    LOOK_SHARE,
    MAY_BE_KNOWN,
    NOTICE_GAP,
    PAUSE,
    Due,
    RepairBudget,
    Schedule,
    Unfinished,
)
from fwguardd.enforce.state import State

NOTHING: frozenset[Unfinished] = frozenset()
FAILED = frozenset({Unfinished.FAILED})
WAITS = frozenset({Unfinished.FILES})


def _after_a_pass(*, wrote: bool = False, again: frozenset[Unfinished] = NOTHING) -> Schedule:
    timetable = Schedule(settle=0.2, settle_max=2.0, interval=60.0)
    timetable.pass_begins(99.9)
    timetable.pass_ended(100.0, wrote=wrote, again=again)
    return timetable


def test_a_burst_is_one_pass_after_quiet() -> None:
    """A pass is due settle after the last notice, not after the first."""
    timetable = _after_a_pass()
    for when in (101.0, 101.1, 101.25):
        timetable.files_changed(when)
    timetable.validation_begins()
    assert timetable.due(101.4) is None
    assert timetable.due(101.46) is Due.CHANGE


def test_a_burst_without_end_is_not_waited_for() -> None:
    """A pass is due settle_max after the first notice, however many come."""
    timetable = _after_a_pass()
    for tick in range(100):
        timetable.files_changed(101.0 + tick * 0.1)
    timetable.validation_begins()
    assert timetable.due(103.0) is Due.CHANGE


def test_the_files_are_judged_ahead_once_in_each_quiet() -> None:
    """A quarter into the quiet there is time to look ahead; again only after another notice."""
    timetable = _after_a_pass()
    timetable.files_changed(101.0)
    assert timetable.due(101.04) is None
    assert timetable.due(101.06) is Due.VALIDATE_AHEAD
    timetable.validation_begins()
    assert timetable.due(101.07) is None
    timetable.files_changed(101.1)
    assert timetable.due(101.16) is Due.VALIDATE_AHEAD


def test_after_a_write_it_looks_again_soon() -> None:
    """After a write the kernel is looked at after 1, 2 and 4 seconds, then by the timer, which they do not put off:
    where nobody has written since the last look, they read nothing."""
    timetable = _after_a_pass(wrote=True)
    waits = []
    now = 100.0
    for due in (Due.AGAIN, Due.AGAIN, Due.AGAIN, Due.TIMER):
        waits.append(timetable.wait(now))
        now += waits[-1]
        assert timetable.due(now) is due
        timetable.pass_begins(now, may_be_known=due.value in MAY_BE_KNOWN)
        timetable.pass_ended(now, wrote=False, again=NOTHING)
    assert waits == [1.0, 2.0, 4.0, 53.0]
    assert timetable.wait(now) == 60.0


def test_the_event_loop_can_wait_while_a_verb_runs_a_pass() -> None:
    """A reload runs its pass beside the event loop, which goes on asking how long to wait."""
    timetable = _after_a_pass()
    timetable.pass_begins(101.0)
    assert timetable.wait(101.0) == 59.0
    timetable.pass_ended(102.0, wrote=False, again=NOTHING)
    assert timetable.wait(102.0) == 60.0


def test_notices_do_not_put_off_the_timer() -> None:
    """However often other programs change what is known from notices, the kernel is read once in an interval."""
    timetable = _after_a_pass(wrote=False)
    for second in range(60):
        timetable.kernel_changed(100.0 + second)
        timetable.pass_begins(100.0 + second, look_only=True, may_be_known=True)
        timetable.pass_ended(100.0 + second, wrote=False, again=NOTHING)
    assert timetable.due(159.9) is None
    assert timetable.due(160.0) is Due.TIMER


def test_failures_that_may_pass_are_tried_again_with_growing_waits() -> None:
    """Each further failure doubles the wait, up to a minute; a success starts over."""
    timetable = Schedule(settle=0.2, settle_max=2.0, interval=86400.0)
    waits = []
    for _ in range(9):
        timetable.pass_begins(100.0)
        timetable.pass_ended(100.0, wrote=False, again=FAILED)
        waits.append(timetable.wait(100.0))
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == LONGEST_RETRY
    timetable.pass_begins(100.0)
    timetable.pass_ended(100.0, wrote=False, again=NOTHING)
    assert timetable.wait(100.0) == 86400.0


def test_a_pass_that_only_looks_puts_no_retry_off() -> None:
    """The retry of what waits comes at its time, and its wait doubles, however short the drift interval is. A kind of
    failure that comes anew is tried again soon."""
    timetable, now = Schedule(settle=0.2, settle_max=2.0, interval=0.3), 100.0
    retries: list[float] = []
    timetable.pass_begins(now)
    timetable.pass_ended(now, wrote=False, again=WAITS)
    while len(retries) < 5:
        now += timetable.wait(now)
        due = timetable.due(now)
        if due is Due.RETRY:
            retries.append(round(now, 6))
        timetable.pass_begins(now, look_only=due is Due.TIMER)
        timetable.pass_ended(now, wrote=False, again=WAITS)
    assert retries == [101.0, 103.0, 107.0, 115.0, 131.0]
    timetable.pass_begins(132.0, look_only=True)
    timetable.pass_ended(132.0, wrote=False, again=WAITS | FAILED)
    assert timetable.due(132.9) is Due.TIMER
    assert timetable.due(133.0) is Due.RETRY


def test_an_undo_that_failed_is_tried_again_soon() -> None:
    """Also where the retry of something else was far away."""
    timetable = Schedule(settle=0.2, settle_max=2.0, interval=86400.0)
    for _ in range(7):
        timetable.pass_begins(100.0)
        timetable.pass_ended(100.0, wrote=False, again=FAILED)
    assert timetable.wait(100.0) == LONGEST_RETRY
    timetable.pass_begins(101.0, look_only=True)
    timetable.pass_ended(101.0, wrote=False, again=FAILED, undo=True)
    assert timetable.wait(101.0) == LONGEST_UNDO_RETRY


def test_a_notice_during_a_pass_is_for_the_next_one() -> None:
    """What changes while a pass runs is never lost: the mark is cleared before the files are read."""
    timetable = _after_a_pass()
    timetable.files_changed(101.0)
    timetable.pass_begins(101.2)
    timetable.files_changed(101.5)
    timetable.pass_ended(101.6, wrote=True, again=NOTHING)
    timetable.validation_begins()
    assert timetable.due(101.71) is Due.CHANGE


def test_a_settle_time_of_nothing_is_no_wait() -> None:
    """With settle 0 the pass itself is due at once, and there is nothing to look ahead for."""
    timetable = Schedule(settle=0.0, settle_max=0.0, interval=60.0)
    timetable.pass_ended(100.0, wrote=False, again=NOTHING)
    timetable.files_changed(101.0)
    assert timetable.due(101.0) is Due.CHANGE


def test_a_change_of_another_program_causes_a_pass_at_once() -> None:
    """At once, but a short gap after the pass before; a second change in the meantime delays nothing."""
    timetable = _after_a_pass()
    timetable.kernel_changed(110.0)
    assert timetable.due(110.0) is Due.NOTICE
    timetable.pass_begins(110.0, look_only=True)
    timetable.pass_ended(110.02, wrote=True, again=NOTHING)
    for when in (110.03, 110.06):
        timetable.kernel_changed(when)
    assert timetable.due(110.06) is None
    assert timetable.due(110.02 + NOTICE_GAP) is Due.NOTICE


def test_looks_for_nothing_take_a_small_share_of_the_time() -> None:
    """A program that changes its own chains all the time makes comparisons rare: a few at once, then a small share of
    the time, and never rarer than once in a minute."""
    for length in (0.02, 0.3, 20.0):
        timetable, now, looked, longest = _after_a_pass(), 1000.0, 0.0, 0.0
        while now < 4600.0:
            timetable.kernel_changed(now)
            longest = max(longest, timetable.wait(now))
            now += timetable.wait(now)
            timetable.pass_begins(now, look_only=True, noticed=True)
            now, looked = now + length, looked + length
            timetable.pass_ended(now, wrote=False, again=NOTHING)
        assert longest <= LONGEST_GAP
        assert looked / 3600 < (1.1 * LOOK_SHARE if length < 1 else 0.3)


def test_repairs_are_not_slowed_down_by_the_share_of_looks() -> None:
    """What repairs something was worth its time."""
    timetable = _after_a_pass()
    for number in range(100):
        timetable.kernel_changed(110.0 + number)
        assert timetable.due(110.0 + number) is Due.NOTICE
        timetable.pass_begins(110.0 + number, look_only=True, noticed=True)
        timetable.pass_ended(110.5 + number, wrote=True, again=NOTHING)


def test_looks_that_no_notice_has_caused_take_nothing_of_the_share() -> None:
    """Those of the timer and after a write come whatever other programs do: the next change by one is looked at as soon
    as without them."""
    timetable = _after_a_pass()
    for number in range(100):
        timetable.pass_begins(110.0 + number, look_only=True)
        timetable.pass_ended(110.9 + number, wrote=False, again=NOTHING)
    timetable.kernel_changed(211.0)
    assert timetable.due(211.0) is Due.NOTICE


def test_a_look_that_was_kept_from_ending_waits_for_calm() -> None:
    """While others write without pause there is nothing to be seen: the next look comes once they stop, or with the
    next try."""
    timetable = _after_a_pass()
    timetable.pass_begins(110.0, look_only=True)
    timetable.pass_ended(140.0, wrote=False, again=frozenset({Unfinished.UNVERIFIED}))
    for tick in range(8):
        timetable.kernel_changed(140.0 + tick * 0.1)
    assert timetable.due(140.85) is None
    assert timetable.due(140.7 + PAUSE) is Due.NOTICE
    assert timetable.due(141.0) is Due.RETRY


def test_repairs_of_one_chain_come_slower_and_end() -> None:
    """Three at once, then each after a longer wait; the tenth within a minute is the last for five minutes."""
    budget, now, waits = RepairBudget(), 100.0, []
    for number in range(9):
        assert budget.spend(now, {f"rule {number}": "ipv4 filter INPUT"}, "somebody") is None
        waits.append(round(budget.back_off(now), 3))
        now += waits[-1]
    assert waits == [0.0, 0.0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    fight = budget.spend(now, {"rule": "ipv4 filter INPUT", "other": "ipv6 filter INPUT"}, "somebody")
    assert fight is not None
    assert (fight.chain, fight.author, fight.until) == ("ipv4 filter INPUT", "somebody", now + 300)
    assert budget.fight(now + 299) == fight
    assert budget.fight(now + 300) is None
    assert budget.back_off(now + 300) == 0.0


def test_repairs_of_many_chains_are_no_fight() -> None:
    """Nobody fights who changes another chain each time, unless it never ends; what is long ago does not count."""
    budget = RepairBudget()
    assert not [n for n in range(149) if budget.spend(100.0 + n / 10, {f"rule {n}": f"ipv4 filter C{n}"}, "")]
    assert budget.spend(115.0, {"rule": "ipv4 nat OUTPUT"}, "") is not None
    slow = RepairBudget()
    assert not [n for n in range(500) if slow.spend(100.0 + 7 * n, {f"rule {n}": "ipv4 filter INPUT"}, "")]


def test_the_same_repair_again_and_again_is_a_fight_however_slow() -> None:
    """The fifth in a row, unless an hour passes without one; another difference in the same chain is counted apart."""
    budget, rule = RepairBudget(), {"-A INPUT -j PVEFW-INPUT": "ipv4 filter INPUT"}
    for number in range(4):
        assert budget.spend(100.0 + 3000 * number, rule, "somebody") is None
    assert budget.spend(9200.0, {"-A INPUT -j OTHER": "ipv4 filter INPUT"}, "") is None
    fight = budget.spend(12_000.0, rule, "somebody")
    assert fight is not None
    assert fight.chain == "ipv4 filter INPUT"
    calm = RepairBudget()
    assert not [number for number in range(9) if calm.spend(100.0 + 3601 * number, rule, "")]


def test_who_asks_for_repairs_gets_them() -> None:
    """A reload or a resume ends what was given up."""
    budget = RepairBudget(most=1)
    assert budget.spend(100.0, {"rule": "ipv4 filter INPUT"}, "somebody") is not None
    budget.reset()
    assert budget.fight(100.0) is None


def test_a_load_that_was_undone_is_looked_at() -> None:
    """The kernel is compared soon after each step that wrote to it, one that failed too unless it is tried again."""
    state = State()
    assert to_look_at(Done(state, changes=1), again=False)
    assert to_look_at(Failed(state, "undone", retry=False, wrote=True), again=False)
    assert not to_look_at(Failed(state, "undone", retry=True, wrote=True), again=True)
    assert not to_look_at(Failed(state, "nothing was written", retry=False), again=False)
    assert not to_look_at(Done(state), again=False)
