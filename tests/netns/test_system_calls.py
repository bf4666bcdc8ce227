"""The harness that fails system calls (`tests/netns/system_calls.py`) fails those that it is asked to."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.system_calls import BEGIN, END, NO_FAULT, Call, Fault, Faulty, fault_at

if TYPE_CHECKING:
    from tests.netns.system_calls import Reports


def _say(reports: Reports, *words: bytes) -> None:
    """Run a program that writes words, each by a write(2) of its own, and report what arrived."""
    reports.send(BEGIN)
    reading, writing = os.pipe()
    script = "; ".join(f"printf {word.decode()}" for word in words)
    subprocess.run(["sh", "-c", script], stdout=writing, stderr=subprocess.DEVNULL, check=False)
    os.close(writing)
    reports.send(END)
    reports.send("arrived", os.read(reading, 100))


def _say_three_words(reports: Reports) -> None:
    reports.exposed(lambda: _say(reports, b"one", b"two", b"three"))


ONE_LESS = frozenset({b"twothree", b"onethree", b"onetwo"})
"""What arrives where one of three writes fails. On a busy machine Python makes a call more or less before them, so the
one that is counted is the one before or after it."""

BEGINNINGS = frozenset({b"", b"one", b"onetwo"})
"""What arrives where one of them and all that follow fail."""


@pytest.mark.parametrize(("for_good", "arrived"), [(False, ONE_LESS), (True, BEGINNINGS)], ids=["once", "from then on"])
def test_the_call_that_is_chosen_fails(for_good: bool, arrived: frozenset[bytes]) -> None:  # noqa: FBT001
    """A fault is injected into a program that the process runs, at the call that was counted, and nowhere else."""
    reported: dict[str, Any] = {}
    # The first of all compiles modules, which takes calls that the others do not make.
    Faulty(_say_three_words, NO_FAULT, reported.__setitem__)
    whole = Faulty(_say_three_words, NO_FAULT, reported.__setitem__)
    assert reported["arrived"] == b"onetwothree"
    assert not whole.failed
    writes = [number for number, call in enumerate(whole.calls) if call == Call("write", in_program=True)]
    assert len(writes) == 3
    fault = fault_at(whole.calls, writes[1], for_good=for_good)
    failed = Faulty(_say_three_words, fault, reported.__setitem__).failed
    assert reported["arrived"] in arrived
    assert failed[Call("write", in_program=True)] >= 1


def _write(descriptor: int) -> str:
    try:
        os.write(descriptor, b"written")
    except OSError as error:
        return str(error.strerror)
    return "written"


def _first(descriptor: int) -> str:
    return _write(descriptor)


def _second(descriptor: int) -> str:
    return _write(descriptor)


def _write_twice_each(reports: Reports) -> None:
    """One call from two places, twice from each."""

    def work() -> None:
        _, writing = os.pipe()
        reports.send(BEGIN)
        came = [write(writing) for write in (_first, _second, _first, _second)]
        reports.send(END)
        reports.send("came", came)

    reports.exposed(work)


def test_a_call_is_known_by_its_place() -> None:
    """Of calls that one function makes for two others, those for one of them can be told from those for the other, and
    the one that is chosen fails."""
    reported: dict[str, Any] = {}
    whole = Faulty(_write_twice_each, NO_FAULT, reported.__setitem__)
    assert reported["came"] == ["written"] * 4
    call = Call("write", in_program=False)
    places = [source.place for made, source in zip(whole.calls, whole.sources, strict=True) if made == call]
    assert [place.split(" < ")[:2] for place in places] == [["_write", "_first"], ["_write", "_second"]] * 2
    faulty = Faulty(_write_twice_each, Fault(call, 1, places[1]), reported.__setitem__)
    assert reported["came"] == ["written", "written", "written", "No space left on device"]
    assert faulty.failed == {call: 1}
