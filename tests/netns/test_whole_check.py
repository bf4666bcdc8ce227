"""The whole rehearsal that checks what was put together gives way to whatever else is asked of the worker."""

from __future__ import annotations

import pytest

from fwguardd.kernel import namespaces
from fwguardd.kernel.namespaces import NamespaceError
from fwguardd.progress import Progress
from fwguardd.ruleset.canonical import Canonical
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.parser import read_rules
from fwguardd.threads import in_thread
from fwguardd.whole_check import WholeCheck
from tests.unit.serving import eventually
from tests.waiting import LONGEST

pytestmark = pytest.mark.either_backend

CANDIDATE = compose([read_rules("a.rules", b"-A INPUT -s 192.0.2.1 -j ACCEPT\n")]).candidate


@pytest.fixture
def check(backend: str) -> WholeCheck:
    """A check that nothing is asked of."""
    return WholeCheck(backend, Progress())


def test_it_is_made_while_nothing_waits(check: WholeCheck) -> None:
    """Steps that have begun do not wait."""
    check.step_asked()
    check.step_begins()
    assert isinstance(check.rehearse(CANDIDATE), Canonical)


def test_it_does_not_begin_while_a_step_waits(check: WholeCheck) -> None:
    """It is made once all steps that were asked for have begun."""
    check.step_asked()
    check.step_asked()
    check.step_begins()
    with pytest.raises(NamespaceError, match="something else waits"):
        check.rehearse(CANDIDATE)
    check.step_begins()
    assert isinstance(check.rehearse(CANDIDATE), Canonical)


def test_it_ends_when_a_step_is_asked_for(check: WholeCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the rehearsal would take: here its worker never answers. The next one is made as ever."""
    with monkeypatch.context() as patched:
        patched.setattr(namespaces, "_WORKER", "import sys; sys.stdin.read()")
        work = in_thread(lambda: check.rehearse(CANDIDATE))
        eventually(lambda: len(check._pool._lent) > 0)
        check.step_asked()
        with pytest.raises(NamespaceError):
            work.result(LONGEST)
    check.step_begins()
    assert isinstance(check.rehearse(CANDIDATE), Canonical)


def test_half_an_answer_is_none(check: WholeCheck, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that ends, or is given up, while it answers is one that has not answered."""
    answer = 'import os, sys; sys.stdin.readline(); os.write(0, b\'{"results": [{"co\')'
    monkeypatch.setattr(namespaces, "_WORKER", answer)
    with pytest.raises(NamespaceError, match="has ended"):
        check.rehearse(CANDIDATE)
