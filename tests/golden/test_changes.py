"""Changes of real rulesets, and what they do to packets in the words that an administrator reads.

``changes/NN-name.txt`` has the rules before, those after, and the difference. The rules are as iptables-save prints
them, since nothing here loads them. To write the differences again:  .venv/bin/python -m tests.golden.update
Then read ``git diff tests/golden/changes``: each change in it is a change of behaviour for users.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.enforce.validate import compose_files
from fwguardd.kernel.z3_solver import Solver
from fwguardd.proof.described_classes import described, of_both_families
from fwguardd.proof.differences import differences
from fwguardd.proof.host_view import surroundings
from fwguardd.proof.model import Model
from fwguardd.proof.reading import RuleModeller
from fwguardd.ruleset.model import FAMILIES, RuleFile, Ruleset
from fwguardd.settings import Settings
from tests.proofs import HOST
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.proof.answers import Asker
    from fwguardd.proof.described_classes import DescribedClass
    from fwguardd.ruleset.model import Family

PAIRS = sorted((Path(__file__).parent / "changes").glob("*.txt"))
SECTIONS = ("before", "after", "difference")


def rulesets_of(name: str, text: str) -> Mapping[Family, Ruleset]:
    """The rulesets of rule files, as they are composed. The rules are in the spelling of the kernel already."""
    composition = compose_files([RuleFile(name, text.encode())], Settings().lint_context())
    assert not composition.findings.errors, list(map(str, composition.findings))
    return composition.candidate.rulesets


def sections(path: Path) -> dict[str, str]:
    """The rules before and after, and the difference."""
    found: dict[str, str] = {}
    for part in path.read_text().split("== ")[1:]:
        name, _, text = part.partition("\n")
        found[name] = text
    return found


def classes_of(before: str, after: str, solver: Asker) -> list[DescribedClass]:
    """What a change of rules does to packets."""
    one, other = rulesets_of("before.rules", before), rulesets_of("after.rules", after)
    found: list[DescribedClass] = []
    for family in FAMILIES:
        first, second = (each.get(family, Ruleset(family, {})) for each in (one, other))
        known = surroundings(family, [first, second], HOST)
        reader = RuleModeller(known)
        models = Model.of(first, known, reader), Model.of(second, known, reader)
        found += described(differences(*models, solver), *models)
    return of_both_families(found)


def difference(path: Path, solver: Asker) -> str:
    """The difference of a pair, in words."""
    parts = sections(path)
    # Which packet of a class is the witness is up to the solver, and so is what decides about it.
    lines = [each.sentence for each in classes_of(parts["before"], parts["after"], solver)]
    return "\n".join([*(lines or ["no packet is treated otherwise"]), ""])


def write_differences() -> None:
    """Write the difference of each pair into its file."""
    with Solver(time.monotonic() + 600) as solver:
        for path in PAIRS:
            rules, _, _ = path.read_text().partition("== difference\n")
            path.write_text(f"{rules}== difference\n{difference(path, solver)}")


@pytest.fixture(scope="module")
def solver() -> Iterator[Asker]:
    """One process of z3 for all pairs."""
    with Solver(time.monotonic() + 10 * LONGEST) as solver:
        yield solver


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: path.stem)
def test_a_change_is_told_in_words(path: Path, solver: Asker) -> None:
    """Which packets are treated otherwise, in few classes, each with the rule to blame and a witness; nothing if the
    change only tidies up."""
    assert difference(path, solver) == sections(path)["difference"]
