"""Rule sets as people write and save them, each with the codes of all findings that it should get: no more and no less.

The files of ``rulesets/`` are written for this test, after the forms of public rule sets: servers, routers, tutorials,
dumps of hosts with Docker, Kubernetes, ufw and fail2ban. Files whose names begin alike are one set, and the first line
of its first file has its expectation: ``# expect: CODE…``, or ``# expect: nothing``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fwguardd.enforce.validate import compose_files
from fwguardd.ruleset.lint import LintContext
from fwguardd.ruleset.model import RuleFile
from fwguardd.settings import Settings

FOLDER = Path(__file__).parent / "rulesets"
SETS = sorted({path.name.partition(".")[0] for path in FOLDER.iterdir()})
FEWEST_SETS = 40


def _context() -> LintContext:
    context = Settings().lint_context()
    return LintContext(context.watched_prefixes, context.preserve, datetime(2026, 7, 1, tzinfo=UTC))


def _expected(text: str) -> set[str]:
    first, _, _ = text.partition("\n")
    return set(first.removeprefix("# expect: ").split()) - {"nothing"}


@pytest.mark.parametrize("name", SETS)
def test_a_rule_set_gets_the_findings_that_it_should(name: str) -> None:
    """All codes that are expected are found, and no other one."""
    files = [RuleFile(path.name, path.read_bytes()) for path in sorted(FOLDER.glob(f"{name}.*"))]
    findings = compose_files(files, _context()).findings
    assert {finding.code for finding in findings} == _expected(files[0].data.decode()), "\n".join(map(str, findings))


def test_the_corpus_is_large_enough() -> None:
    """A false alarm shows only where many forms of rule sets are tried."""
    assert len(SETS) >= FEWEST_SETS
