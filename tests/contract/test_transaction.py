"""One suite for the fake kernel and the real one, and faults that only the fake can have at will."""

from __future__ import annotations

import contextlib
import subprocess
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce import transaction
from fwguardd.enforce.look import Look
from fwguardd.enforce.transaction import (
    Applied,
    Unchanged,
    UndoDelayedError,
    UndoFailedError,
    UndoneError,
    Unverified,
    find_drift,
    put_in_force,
)
from fwguardd.kernel.iptables import (
    Backend,
    KernelBusyError,
    KernelError,
    KernelStarvedError,
    LiveKernel,
    LoadInterruptedError,
    RestoreRefusedError,
    StalePlaceError,
    UnknownContentError,
)
from fwguardd.ruleset.canonical import Canonical, Emptying, Owned
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.diff import compare
from fwguardd.ruleset.model import FAMILIES, Family, Ruleset
from fwguardd.ruleset.operations import render_plan
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.preserve import Preserve, own_part
from fwguardd.ruleset.save_format import Saved
from tests.netns.namespaces import fresh_namespace
from tests.property.restore_simulator import RefusedError, restore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from fwguardd.ruleset.operations import LiveRule, Plan

pytestmark = pytest.mark.root

PRESERVE = Preserve.from_patterns(["DOCKER*"])


class FakeKernel:
    """A kernel in memory, with knobs: what the next calls of restore and look do instead of what they should."""

    def __init__(self) -> None:
        self.live = {family: Ruleset(family, {}) for family in FAMILIES}
        self.restores: list[Callable[[Family, str], None] | None] = []
        self.looks: list[Callable[[], None] | None] = []
        self.hidden = Owned()
        self.written = 0

    def look(self, families: Collection[Family]) -> Mapping[Family, Saved]:
        """What is live, and what is hidden."""
        if self.looks and (knob := self.looks.pop(0)) is not None:
            knob()
        return {family: Saved(self.live[family], self._hidden_tables(family)) for family in families}

    def share_texts(self, _rulesets: Mapping[Family, Ruleset]) -> None:
        """Nothing is held."""

    def last_look(self, _families: Collection[Family]) -> Mapping[Family, Saved] | None:
        """Whether anything was written is not known, as with legacy iptables."""
        return None

    def recounted(self, _rules: Mapping[Family, Sequence[LiveRule]]) -> Mapping[Family, Saved] | None:
        """Nor what rules have counted since."""
        return None

    def _hidden_tables(self, family: Family) -> frozenset[str]:
        return frozenset(name for owner, name in self.hidden if owner is family)

    def commit(self, plans: Sequence[Plan]) -> None:
        """Load plans as the live kernel does."""
        for plan in plans:
            for text in render_plan(plan):
                self.restore(plan.family, text)

    def restore(self, family: Family, text: str) -> None:
        """Load a text, unless a knob says otherwise."""
        if self.restores and (knob := self.restores.pop(0)) is not None:
            return knob(family, text)
        return self.load(family, text)

    def load(self, family: Family, text: str) -> None:
        """Load a text."""
        try:
            self.live[family] = restore(self.live[family], text)
        except RefusedError as error:
            raise RestoreRefusedError(str(error)) from error
        self.written += 1

    def exclusive(self) -> AbstractContextManager[None]:
        """No other program writes."""
        return nullcontext()


AnyKernel = FakeKernel | LiveKernel


@contextmanager
def _kernel(kind: str) -> Iterator[AnyKernel]:
    if kind == "fake":
        yield FakeKernel()
    else:
        with fresh_namespace():
            yield LiveKernel(Backend(kind))


@pytest.fixture(params=["fake", "nft", "legacy"])
def kernel(request: pytest.FixtureRequest) -> Iterator[AnyKernel]:
    """The fake, and both halves of the real kernel."""
    with _kernel(request.param) as made:
        yield made


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """The fake alone, for faults; its transactions do not wait between tries."""
    monkeypatch.setattr(transaction, "RETRY_WAITS", (0.0, 0.0, 0.0))
    return FakeKernel()


def rehearsed(text: str) -> Canonical:
    """Rules that are written in canonical form already, as rehearsed."""
    return Canonical.rehearsed(compose([read_rules("t.rules", text.encode())]).candidate.rulesets)


FIRST = rehearsed(
    "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n*nat\n-A POSTROUTING -o eth0 -j ACCEPT\n*mangle\n-P INPUT DROP\n"
)
SECOND = rehearsed(
    ":WEB -\n-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp -j WEB\n-A WEB -j ACCEPT\n"
    "*nat\n-A POSTROUTING -o eth1 -j ACCEPT\n*mangle\n-A INPUT -i eth0 -j ACCEPT\n"
)


def _live(kernel: AnyKernel) -> Mapping[Family, Ruleset]:
    """Everything that iptables shows."""
    return {family: saved.shown for family, saved in kernel.look(FAMILIES).items()}


def _holds(kernel: AnyKernel, wanted: Canonical) -> bool:
    live = _live(kernel)
    return all(not compare(ruleset, live[family]) for family, ruleset in wanted.rulesets.items())


def _release_to(wanted: Canonical) -> Emptying:
    """What is released where this comes in force after FIRST."""
    return Emptying.for_release(FIRST.owned, wanted.owned, FIRST.closed_policies)


def test_what_is_wanted_is_in_force(kernel: AnyKernel) -> None:
    """All owned tables of both families are as wanted, and the way back is as good as the way there."""
    for wanted in (FIRST, SECOND, FIRST):
        assert isinstance(put_in_force(kernel, wanted, PRESERVE), Applied)
        assert _holds(kernel, wanted)
        assert find_drift(kernel, wanted, PRESERVE) == ()


def test_what_is_in_force_is_not_written_again(kernel: AnyKernel) -> None:
    """An unchanged ruleset writes nothing."""
    put_in_force(kernel, FIRST, PRESERVE)
    assert isinstance(put_in_force(kernel, FIRST, PRESERVE), Unchanged)


def test_released_tables_are_emptied(kernel: AnyKernel) -> None:
    """A table that is let go holds nothing and accepts everything."""
    put_in_force(kernel, FIRST, PRESERVE)
    only_filter = rehearsed("-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n")
    put_in_force(
        kernel, only_filter, PRESERVE, Emptying.for_release(FIRST.owned, only_filter.owned, FIRST.closed_policies)
    )
    for ruleset in _live(kernel).values():
        for name in ("nat", "mangle"):
            assert all(chain.policy == "ACCEPT" and not chain.rules for chain in ruleset.tables[name].chains.values())


def test_chains_of_others_stay_as_they_are(kernel: AnyKernel) -> None:
    """What is preserved is there before and after, to the letter, counters included."""
    theirs = (
        "*filter\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -s 192.0.2.1/32 -j DROP\nCOMMIT\n"
    )
    kernel.restore(Family.IPV4, theirs)
    for wanted in (FIRST, SECOND):
        put_in_force(kernel, wanted, PRESERVE)
        table = _live(kernel)[Family.IPV4].tables["filter"]
        assert [rule.text for rule in table.chains["DOCKER-USER"].rules] == ["-s 192.0.2.1/32 -j DROP"]
        assert [rule.text for rule in table.chains["FORWARD"].rules] == ["-j DOCKER-USER"]


ONLY_FILTER = rehearsed("-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n")


@pytest.fixture(params=["fake", "nft"])
def hiding(request: pytest.FixtureRequest) -> Iterator[tuple[AnyKernel, Callable[[str], None]]]:
    """The kernels in which a table can hold what iptables cannot show, and how to put that into both families."""
    with _kernel(request.param) as made:

        def hide(table: str) -> None:
            if isinstance(made, FakeKernel):
                made.hidden |= {(family, table) for family in FAMILIES}
                return
            for family in ("ip", "ip6"):
                text = f"table {family} {table} {{ chain native {{ quota over 1 mbytes drop; }}; }}"
                subprocess.run(["nft", text], check=True)
            assert isinstance(made, LiveKernel)
            assert all(table in saved.hidden for saved in made.look(FAMILIES).values())

        yield made, hide


def test_a_hidden_table_of_another_program_is_ignored(hiding: tuple[AnyKernel, Callable[[str], None]]) -> None:
    """A table that no file names may hold what iptables cannot show: ours are written, compared and repaired beside
    it."""
    kernel, hide = hiding
    hide("nat")
    assert isinstance(put_in_force(kernel, ONLY_FILTER, PRESERVE), Applied)
    assert find_drift(kernel, ONLY_FILTER, PRESERVE) == ()
    kernel.restore(Family.IPV6, "*filter\n-D INPUT 1\nCOMMIT\n")
    assert find_drift(kernel, ONLY_FILTER, PRESERVE) != ()
    assert isinstance(put_in_force(kernel, ONLY_FILTER, PRESERVE), Applied)
    assert _holds(kernel, ONLY_FILTER)


@pytest.mark.parametrize("table", ["filter", "nat"])
def test_a_table_of_ours_that_is_hidden_is_not_written(
    hiding: tuple[AnyKernel, Callable[[str], None]], table: str
) -> None:
    """Writing it would destroy rules that cannot be read: nothing is written, be the table wanted or released."""
    kernel, hide = hiding
    put_in_force(kernel, FIRST, PRESERVE)
    released = _release_to(ONLY_FILTER)
    hide(table)
    with pytest.raises(UnknownContentError, match=f"Table `{table}' is incompatible"):
        find_drift(kernel, FIRST, PRESERVE)
    for wanted, release in ((SECOND, None), (ONLY_FILTER, released)):
        with pytest.raises(UnknownContentError, match=f"Table `{table}' is incompatible"):
            put_in_force(kernel, wanted, PRESERVE, release)
    live = _live(kernel)
    shown = {"filter", "nat", "mangle"} - {table}
    for family, ruleset in FIRST.rulesets.items():
        for name in shown & ruleset.tables.keys():
            assert not compare(Ruleset(family, {name: ruleset.tables[name]}), live[family])


def test_a_table_that_was_let_go_may_be_hidden_then(hiding: tuple[AnyKernel, Callable[[str], None]]) -> None:
    """A table that was released belongs to other programs."""
    kernel, hide = hiding
    put_in_force(kernel, FIRST, PRESERVE)
    put_in_force(kernel, ONLY_FILTER, PRESERVE, _release_to(ONLY_FILTER))
    hide("nat")
    assert isinstance(put_in_force(kernel, ONLY_FILTER, PRESERVE), Unchanged)


def _refuse(_family: Family, _text: str) -> None:
    raise RestoreRefusedError("line 3 failed")


def _kill(_family: Family, _text: str) -> None:
    raise LoadInterruptedError("iptables-nft-restore was killed by SIGKILL")


def _hang(_family: Family, _text: str) -> None:
    raise KernelError("iptables-nft-restore did not end within 60 s and was killed")


def _starve(_family: Family, _text: str) -> None:
    raise KernelStarvedError("iptables-nft-restore did not end within 60 s and was killed")


def _unseen() -> None:
    raise KernelStarvedError("iptables-nft-save did not end within 30 s and was killed")


def _lie(_family: Family, _text: str) -> None:
    """Say yes, and do nothing."""


def _busy(_family: Family, _text: str) -> None:
    raise KernelBusyError("/run/xtables.lock has been held by process 812 (iptables) for over 5 s")


FAULTS = {"refuses": _refuse, "hangs": _hang, "starves": _starve, "lies": _lie}


@pytest.mark.parametrize("knob", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize(("before", "after"), [(FIRST, SECOND), (SECOND, FIRST)], ids=["there", "back"])
def test_a_fault_at_any_step_changes_nothing(
    fake: FakeKernel, knob: Callable[[Family, str], None], before: Canonical, after: Canonical
) -> None:
    """A load that refuses, hangs or lies, at whichever step: what was in force before is in force after. What a lie let
    fail later may be planned anew, and succeed."""
    put_in_force(fake, before, PRESERVE)
    steps = _steps_of(fake, after)
    assert steps >= 2
    for step in range(steps):
        # What is refused where a part is written already is tried once more.
        fake.restores = [None] * step + [knob] * (1 + (knob is _refuse and step > 0))
        held = before
        with contextlib.suppress(UndoneError):
            put_in_force(fake, after, PRESERVE)
            held = after
        assert held == before or knob is _lie
        assert _holds(fake, held), f"step {step} of {steps}"


def test_a_load_that_is_refused_once_is_planned_anew(fake: FakeKernel) -> None:
    """Where the kernel holds something else than the load was planned for, another one may be accepted."""
    put_in_force(fake, FIRST, PRESERVE)
    fake.restores = [None, _refuse]
    assert isinstance(put_in_force(fake, SECOND, PRESERVE), Applied)
    assert _holds(fake, SECOND)


def _steps_of(fake: FakeKernel, wanted: Canonical) -> int:
    """How many loads it takes from what is live to what is wanted; nothing is changed."""
    live, before = dict(fake.live), fake.written
    put_in_force(fake, wanted, PRESERVE)
    fake.live, steps = live, fake.written - before
    return steps


def test_a_fault_that_wrote_half_is_undone(fake: FakeKernel) -> None:
    """A program that was killed after the first of its tables leaves them as they were before."""
    put_in_force(fake, FIRST, PRESERVE)

    def half(family: Family, text: str) -> None:
        first_table = text[: text.index("COMMIT\n") + len("COMMIT\n")]
        fake.load(family, first_table)
        raise RestoreRefusedError("iptables-nft-restore failed with code 1")

    fake.restores = [None, half, half]
    with pytest.raises(UndoneError, match="code 1"):
        put_in_force(fake, SECOND, PRESERVE)
    assert _holds(fake, FIRST)


def test_a_clash_is_tried_again(fake: FakeKernel) -> None:
    """A lock that is held for a moment, or a clash of generations, delays a load and does not fail it."""
    put_in_force(fake, FIRST, PRESERVE)
    fake.restores = [_busy, _busy, _busy]
    assert isinstance(put_in_force(fake, SECOND, PRESERVE), Applied)
    assert _holds(fake, SECOND)


def test_a_load_that_was_killed_is_made_again_at_once(fake: FakeKernel) -> None:
    """Whatever it had written before it was killed: what is left is planned anew, and no rule comes twice."""
    put_in_force(fake, FIRST, PRESERVE)
    fake.restores = [_kill, None, _kill]
    assert isinstance(put_in_force(fake, SECOND, PRESERVE), Applied)
    assert _holds(fake, SECOND)

    def killed_at_its_end(family: Family, text: str) -> None:
        fake.load(family, text)
        _kill(family, text)

    fake.restores = [killed_at_its_end] * 3
    assert isinstance(put_in_force(fake, FIRST, PRESERVE), Applied)
    assert _holds(fake, FIRST)


@pytest.mark.parametrize("defect", [MemoryError("defect"), ZeroDivisionError("defect"), KeyboardInterrupt("defect")])
def test_a_defect_in_the_middle_is_undone_and_raised(fake: FakeKernel, defect: BaseException) -> None:
    """Whatever is raised between the first load and the last, both families hold what they held before."""
    put_in_force(fake, FIRST, PRESERVE)

    def fail(*_: object) -> None:
        raise defect

    for step in range(_steps_of(fake, SECOND)):
        fake.restores = [None] * step + [fail]
        with pytest.raises(type(defect), match="defect"):
            put_in_force(fake, SECOND, PRESERVE)
        assert _holds(fake, FIRST)
    fake.looks = [None, fail]
    with pytest.raises(type(defect), match="defect"):
        put_in_force(fake, SECOND, PRESERVE)
    assert _holds(fake, FIRST)


def test_a_defect_that_cannot_be_undone_yet_is_named(fake: FakeKernel) -> None:
    """The undo is still to come, so that is what the caller learns, with the type of the defect."""
    put_in_force(fake, FIRST, PRESERVE)

    def fail(_family: Family, _text: str) -> None:
        raise MemoryError("out of it")

    fake.restores = [None, *[fail] * 5]
    with pytest.raises(UndoDelayedError, match=r"MemoryError: out of it\. It could not be undone yet"):
        put_in_force(fake, SECOND, PRESERVE)


def test_an_undo_that_failed_once_is_tried_again(fake: FakeKernel) -> None:
    """A fault that passes meanwhile leaves no trace."""
    put_in_force(fake, FIRST, PRESERVE)
    fake.restores = [None, _refuse, _refuse, _hang, _refuse]
    with pytest.raises(UndoneError, match="line 3 failed"):
        put_in_force(fake, SECOND, PRESERVE)
    assert _holds(fake, FIRST)


def test_what_shows_less_than_was_written_is_looked_at_twice(fake: FakeKernel) -> None:
    """One look that does not show all is no reason to undo a load."""
    put_in_force(fake, FIRST, PRESERVE)
    whole = fake.look

    def short(families: Collection[Family]) -> Mapping[Family, Saved]:
        fake.look = whole  # type: ignore[method-assign]
        return {family: Saved(FIRST.rulesets[family]) for family in families}

    def then_short(family: Family, text: str) -> None:
        fake.load(family, text)
        fake.look = short  # type: ignore[method-assign]

    fake.restores = [None, None, None, then_short]
    assert isinstance(put_in_force(fake, SECOND, PRESERVE), Applied)
    assert _holds(fake, SECOND)


MANY = rehearsed(":WEB -\n" + "".join(f"-A WEB -p tcp --dport {port} -j ACCEPT\n" for port in range(1, 601)))
FEWER = rehearsed(":WEB -\n-A WEB -p tcp --dport 1 -j ACCEPT\n-A WEB -p tcp --dport 600 -j ACCEPT\n")


def test_a_large_load_that_ran_out_of_time_is_made_another_way(fake: FakeKernel) -> None:
    """The same text would run out of time again: first rules go by text, then by number, then the chain is flushed."""
    put_in_force(fake, MANY, PRESERVE)
    texts: list[str] = []

    def out_of_time(family: Family, text: str) -> None:
        texts.append(text)
        _starve(family, text)

    def record(family: Family, text: str) -> None:
        texts.append(text)
        fake.load(family, text)

    fake.restores = [out_of_time, out_of_time, record]
    assert isinstance(put_in_force(fake, FEWER, PRESERVE), Applied)
    assert _holds(fake, FEWER)
    assert [text.splitlines()[1] for text in texts] == ["-D WEB -p tcp --dport 2 -j ACCEPT", "-D WEB 2", "-F WEB"]


@pytest.mark.parametrize("wanted", [FEWER, MANY], ids=["few", "many"])
def test_what_takes_place_beside_a_write_begins_right_before_it(fake: FakeKernel, wanted: Canonical) -> None:
    """It begins once what is written is known, and not where nothing is written."""
    begun: list[str] = []

    def load(family: Family, text: str) -> None:
        begun.append("load")
        fake.load(family, text)

    fake.restores = [load]
    outcome = put_in_force(fake, wanted, PRESERVE, beside=lambda: begun.append("beside"))
    assert isinstance(outcome, Applied)
    assert begun == ["beside", "load"]
    assert _holds(fake, wanted)
    assert isinstance(put_in_force(fake, wanted, PRESERVE, beside=lambda: begun.append("beside")), Unchanged)
    assert begun == ["beside", "load"]


def _meddling(fake: FakeKernel, text: str) -> Callable[[Family, str], None]:
    """A load that comes after one of another program, which wrote between the look and the write."""

    def knob(family: Family, ours: str) -> None:
        fake.load(family, text)
        fake.load(family, ours)

    return knob


def test_a_rule_that_comes_before_ours_meanwhile_is_no_failure(fake: FakeKernel) -> None:
    """Places are counted from a look, and another program inserts a jump at the head before the write: our rules have
    the right order in the end, behind that jump."""
    third = rehearsed("-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p udp -j DROP\n-A INPUT -p tcp -j DROP\n")
    fourth = rehearsed(
        "-P INPUT DROP\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p udp -j DROP\n-A INPUT -s 192.0.2.1/32 -j DROP\n"
        "-A INPUT -p tcp -j DROP\n"
    )
    put_in_force(fake, third, PRESERVE)
    fake.restores = [_meddling(fake, "*filter\n:DOCKER - [0:0]\n-I INPUT 1 -j DOCKER\nCOMMIT\n")]
    assert isinstance(put_in_force(fake, fourth, PRESERVE), Applied)
    live = fake.live[Family.IPV4]
    assert live.tables["filter"].chains["INPUT"].rules[0].text == "-j DOCKER"
    assert compare(fourth.rulesets[Family.IPV4], own_part(live, PRESERVE)) == ()


def test_a_plan_whose_places_are_gone_is_made_again(fake: FakeKernel) -> None:
    """Another program deletes what the plan counted on: it is made again from a new look, but not endlessly."""

    def stale(_family: Family, _text: str) -> None:
        raise StalePlaceError("iptables-nft-restore: line 3 failed: Index of insertion too big.")

    put_in_force(fake, FIRST, PRESERVE)
    fake.restores = [stale, None, stale]
    assert isinstance(put_in_force(fake, SECOND, PRESERVE), Applied)
    assert _holds(fake, SECOND)
    fake.restores = [stale] * 5
    with pytest.raises(UndoneError, match="Index of insertion"):
        put_in_force(fake, FIRST, PRESERVE)
    assert _holds(fake, SECOND)


def test_a_lock_that_is_held_for_ever_changes_nothing(fake: FakeKernel) -> None:
    """After the last try the load is given up, the holder is named, and nothing has changed."""
    put_in_force(fake, FIRST, PRESERVE)
    fake.restores = [_busy] * 4
    with pytest.raises(UndoneError, match=r"process 812 \(iptables\)"):
        put_in_force(fake, SECOND, PRESERVE)
    assert _holds(fake, FIRST)


def test_an_undo_that_fails_has_an_error_of_its_own(fake: FakeKernel) -> None:
    """When even the undo is refused, again and again, there is an error of its own, with both reasons."""
    put_in_force(fake, FIRST, PRESERVE)
    fake.restores = [None, *[_refuse] * 6]
    with pytest.raises(UndoFailedError, match=r"line 3 failed.*The undo failed too.*line 3 failed"):
        put_in_force(fake, SECOND, PRESERVE)


@pytest.mark.parametrize("error", [KernelStarvedError, KernelError])
def test_a_write_that_cannot_be_verified_is_not_undone(fake: FakeKernel, error: type[KernelError]) -> None:
    """The load ended without an error and the kernel cannot be read then: what was written stays, and the outcome says
    that it is not verified."""
    put_in_force(fake, FIRST, PRESERVE)

    def unverified() -> None:
        raise error("iptables-nft-save said nothing")

    fake.looks = [None, unverified]
    outcome = put_in_force(fake, SECOND, PRESERVE)
    assert isinstance(outcome, Unverified)
    assert outcome.reason == "iptables-nft-save said nothing"
    assert outcome.changes
    assert _holds(fake, SECOND)


@pytest.mark.parametrize("knob", [_refuse, _kill, _starve], ids=["refuses", "is killed", "starves"])
def test_an_undo_is_delayed_while_the_kernel_cannot_be_read(
    fake: FakeKernel, knob: Callable[[Family, str], None]
) -> None:
    """A load failed and what it left cannot be looked at: that is an undo to come, not one that failed, and what was
    in force before can be brought back later."""
    put_in_force(fake, FIRST, PRESERVE)
    fake.restores, fake.looks = [None, knob], [None, *[_unseen] * 2]
    with pytest.raises(UndoDelayedError, match="iptables-nft-save did not end within 30 s"):
        put_in_force(fake, SECOND, PRESERVE)
    fake.looks = []
    assert not _holds(fake, FIRST)
    put_in_force(fake, FIRST, PRESERVE)
    assert _holds(fake, FIRST)


@pytest.mark.parametrize("step", ["the write", "the look behind it"])
def test_an_undo_that_cannot_be_completed_is_delayed(fake: FakeKernel, step: str) -> None:
    """The same where the undo could look, but not write, or not see what it wrote."""
    put_in_force(fake, FIRST, PRESERVE)
    fake.restores = [None, _refuse, _refuse, *([_starve] if step == "the write" else [])]
    fake.looks = [None, None, None, *[_unseen] * 2]
    with pytest.raises(UndoDelayedError):
        put_in_force(fake, SECOND, PRESERVE)


def test_a_load_that_starved_is_not_tried_again_at_once(fake: FakeKernel) -> None:
    """It took a minute, and the next try would take another, while passes and verbs wait."""
    put_in_force(fake, FIRST, PRESERVE)
    fake.restores = [_starve]
    with pytest.raises(UndoneError):
        put_in_force(fake, SECOND, PRESERVE)
    assert fake.restores == []
    assert _holds(fake, FIRST)


def test_a_first_look_that_fails_writes_nothing(fake: FakeKernel) -> None:
    """Without a first look there is nothing to restore after a failure, so nothing is written."""
    put_in_force(fake, FIRST, PRESERVE)
    before = fake.written

    def unreadable() -> None:
        raise KernelError("iptables-nft-save failed with code 4")

    fake.looks = [unreadable]
    with pytest.raises(KernelError, match="code 4"):
        put_in_force(fake, SECOND, PRESERVE)
    assert fake.written == before
    assert _holds(fake, FIRST)


def test_stricter_tables_are_written_first(fake: FakeKernel) -> None:
    """Where one table takes over from another what is dropped, there is no moment in which neither drops it."""
    before = rehearsed("-P INPUT DROP\n*raw\n-P PREROUTING ACCEPT\n")
    after = rehearsed("-P INPUT ACCEPT\n*raw\n-P PREROUTING DROP\n")
    put_in_force(fake, before, PRESERVE)
    moments: list[tuple[str | None, str | None]] = []

    def one_by_one(family: Family, text: str) -> None:
        for block in text.split("COMMIT\n")[:-1]:
            fake.load(family, f"{block}COMMIT\n")
            tables = fake.live[family].tables
            moments.append((tables["filter"].chains["INPUT"].policy, tables["raw"].chains["PREROUTING"].policy))

    for first, second in ((before, after), (after, before)):
        assert _holds(fake, first)
        fake.restores = [one_by_one, one_by_one]
        put_in_force(fake, second, PRESERVE)
    assert len(moments) == 8
    assert all("DROP" in moment for moment in moments)


def test_the_operations_of_a_write_are_not_held_while_the_kernel_is_read_back(fake: FakeKernel) -> None:
    """There is one for each rule: the memory that they took is that of the rules that are read."""
    looks, held = list[Look](), list[int]()

    def before_write(look: Look) -> Preserve:
        looks.append(look)
        return PRESERVE

    fake.looks = [None, lambda: held.append(len(looks[0].found))]
    assert isinstance(put_in_force(fake, MANY, PRESERVE, before_write=before_write), Applied)
    assert held == [0]
