"""The table of the control socket's verbs in the daemon."""

from __future__ import annotations

import _thread
import asyncio
from typing import TYPE_CHECKING, NoReturn

import pytest

from fwguardd.control.protocol import VERBS, Code, EncodedAnswer, Request, RequestError, Verb
from fwguardd.control.server import Caller
from fwguardd.store.model import DamagedError
from fwguardd.verbs import MOST_READS, MOST_READS_OF_A_USER, ControlVerbs, RevisionReader

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

ROOT_CALLER = Caller(uid=0, gid=0, pid=1, process="test")


class _Untouchable:
    """Fails the test when anything of it is used."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AssertionError(f"{name} was used")


def test_every_verb_of_the_protocol_has_a_function() -> None:
    """The verbs that a request may name are those that the daemon performs, no more and no fewer."""
    assert ControlVerbs.TABLE.keys() == VERBS.keys()


@pytest.mark.parametrize("reads", [True, False])
def test_a_verb_without_a_function_does_nothing(reads: bool) -> None:  # noqa: FBT001 - a parameter of the test.
    """A verb that is added to the protocol only is refused as unknown; no part of the daemon is used for it."""
    untouchable = _Untouchable()
    verbs = ControlVerbs(untouchable, untouchable, untouchable)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="explode is not implemented") as refused:
        asyncio.run(verbs(Request(Verb("explode", reads=reads), {}), ROOT_CALLER))
    assert refused.value.code is Code.UNKNOWN_VERB


def test_reads_of_revisions_are_bounded(tmp_path: Path) -> None:
    """So many reads are accepted at once from one user, and one more is refused as busy, which other users, and root
    above all, do not notice; afterwards there is room again."""

    async def ask() -> list[list[Code]]:
        reader = RevisionReader(tmp_path)
        requests: list[Coroutine[None, None, EncodedAnswer]] = []
        for uid, most in ((1000, MOST_READS_OF_A_USER), (1001, MOST_READS_OF_A_USER), (0, MOST_READS)):
            requests += [reader.show(number, uid) for number in range(most + 1)]
        answers = await asyncio.gather(*requests, return_exceptions=True)
        again = await asyncio.gather(reader.show(1, 1000), return_exceptions=True)
        reader.close()
        return [[answer.code for answer in some if isinstance(answer, RequestError)] for some in (answers, again)]

    user = [Code.NOT_FOUND] * MOST_READS_OF_A_USER + [Code.BUSY]
    assert asyncio.run(ask()) == [[*user, *user, *[Code.NOT_FOUND] * MOST_READS, Code.BUSY], [Code.NOT_FOUND]]


def test_the_reader_changes_nothing(tmp_path: Path) -> None:
    """A revision whose file is damaged is an error for the caller, and the file stays where it is: only the
    worker thread moves files."""
    (tmp_path / "revisions").mkdir()
    path = tmp_path / "revisions" / "000007.json"
    path.write_text("torn")

    async def ask() -> None:
        reader = RevisionReader(tmp_path)
        try:
            await reader.show(7)
        finally:
            reader.close()

    with pytest.raises(DamagedError):
        asyncio.run(ask())
    assert path.read_text() == "torn"


def test_a_revision_is_not_shown_without_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a host that has no thread to spare the request fails, the event loop goes on, and the next request is served
    once there is one."""

    def refused(_run: object, _args: object) -> int:
        raise RuntimeError("can't start new thread")

    async def ask() -> list[Code]:
        reader = RevisionReader(tmp_path)
        with monkeypatch.context() as starved:
            starved.setattr(_thread, "start_new_thread", refused)
            first = await asyncio.gather(reader.show(1), return_exceptions=True)
        second = await asyncio.gather(reader.show(1), return_exceptions=True)
        reader.close()
        return [answer.code for answer in (*first, *second) if isinstance(answer, RequestError)]

    assert asyncio.run(ask()) == [Code.FAILED, Code.NOT_FOUND]
