"""The numbers of users and groups by their names, on a host whose directory server may not answer."""

from __future__ import annotations

import pwd
import threading
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel import accounts
from fwguardd.kernel.accounts import ACCOUNTS
from fwguardd.packets.tests_file import read_policy_tests
from fwguardd.ruleset.model import RuleFile
from tests.waiting import LONGEST, must_end

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = b"""tests:
- {expect: accept, out: lo, to: 192.0.2.1, uid: alice}
- {expect: accept, out: lo, to: 192.0.2.1, uid: bob}
"""


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A directory server that does not answer until the end of the test; the names that it is asked for."""
    asked, answers = list[str](), threading.Event()

    def getpwnam(name: str) -> None:
        asked.append(name)
        answers.wait(LONGEST)
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    monkeypatch.setattr(accounts, "SECONDS", 0.01)
    monkeypatch.setattr(accounts, "LOOKUPS", accounts.Lookups())
    yield asked
    answers.set()


def test_names_of_this_host() -> None:
    """A name that there is has its number, another one has none."""
    assert (ACCOUNTS.user("root"), ACCOUNTS.group("root")) == (0, 0)
    assert (ACCOUNTS.user("no such user"), ACCOUNTS.group("no such group")) == (None, None)


def test_a_directory_that_does_not_answer_is_a_finding(silent: list[str]) -> None:
    """Each name is a finding at its line, and only the first one is waited for."""
    with must_end("the reading"):
        found = read_policy_tests([RuleFile("t.tests.yaml", TEXT)], ACCOUNTS).findings
    assert [finding.origin and finding.origin.line for finding in found] == [2, 3]
    assert all("write the number" in finding.message for finding in found)
    assert silent == ["alice"]
