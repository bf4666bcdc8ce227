"""A validation of files that were validated before finds the same as the first, and looks at what is new only."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.rule_files import take_snapshot
from fwguardd.enforce.validate import Valid, Validator
from fwguardd.ruleset.canonical import Canonical
from fwguardd.ruleset.lint import LintContext
from fwguardd.ruleset.preserve import Preserve
from tests.counting import steps

if TYPE_CHECKING:
    from pathlib import Path

    from fwguardd.ruleset.model import Candidate

EARLIER, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)
CONTEXT = LintContext(("iptables denied: ",), Preserve.from_patterns([]), EARLIER)
MANY = "".join(f"-A INPUT -s 192.0.2.{number} -p tcp --dport 80 -j ACCEPT\n" for number in range(1, 200))


def as_written(candidate: Candidate, /) -> Canonical:
    """Stands for a kernel that spells rules as they are written."""
    return Canonical.rehearsed(candidate.rulesets)


@pytest.fixture
def validator() -> Validator:
    """A validator that has validated nothing yet."""
    return Validator(as_written, CONTEXT)


def warnings_of(validator: Validator, rules: Path) -> list[str]:
    """The codes of what it finds in a directory of rules."""
    result = validator.validate(take_snapshot(rules))
    assert isinstance(result, Valid)
    return [finding.code for finding in result.findings]


def test_files_that_stay_are_not_linted_again(validator: Validator, tmp_path: Path) -> None:
    """Where nothing has changed but the time, a lint takes no step for each rule."""
    (tmp_path / "10-many.rules").write_text(MANY)
    snapshot = take_snapshot(tmp_path)
    readings = validator._read(snapshot.files)
    composition = validator._compose(readings, snapshot)
    assert steps(lambda: validator._lint(composition, readings)) > MANY.count("\n")
    validator.forget(replace(CONTEXT, now=LATER))
    assert steps(lambda: validator._lint(composition, readings)) < MANY.count("\n")


def test_the_time_and_the_settings_change_warnings(validator: Validator, tmp_path: Path) -> None:
    """A date that has passed since, a prefix that is not watched any more, and a file that changed are found although
    the files were linted before."""
    dated = '-A INPUT -m time --datestop 2026-02-01 -j ACCEPT\n-A INPUT -m limit --limit 5/min -j LOG --log-prefix "a "'
    (tmp_path / "10-a.rules").write_text(f"{dated}\n")
    watched = replace(CONTEXT, watched_prefixes=("a ",))
    validator.forget(watched)
    before = warnings_of(validator, tmp_path)
    assert "time-passed" not in before
    assert "log-prefix-unwatched" not in before
    validator.forget(replace(watched, now=LATER))
    assert sorted(warnings_of(validator, tmp_path)) == sorted([*before, "time-passed"])
    validator.forget(replace(CONTEXT, watched_prefixes=("b ",)))
    assert sorted(warnings_of(validator, tmp_path)) == sorted([*before, "log-prefix-unwatched"])
    (tmp_path / "10-a.rules").write_text("-A INPUT -p tcp -j LOG\n")
    assert "log-without-limit" in warnings_of(validator, tmp_path)
