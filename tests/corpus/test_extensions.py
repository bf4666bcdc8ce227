"""Every extension of this machine's iptables, on our road: read, composed, rehearsed on the real kernel, twice.

The rules are in ``extensions.txt``. What a rehearsal makes of them is fed to the road again as rule files, and comes
out unchanged; and each rule can be deleted by the text that it then has, which is what plans do.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel.namespaces import NamespacePool
from fwguardd.kernel.rehearsal import RehearsalRefused, Rehearsals
from fwguardd.ruleset.canonical import Canonical
from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.families import IPV4_ONLY, IPV6_ONLY, families_of_name
from fwguardd.ruleset.model import FAMILIES, Family
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.save_format import render, rules_in_order
from tests.policies import with_stated_policies

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.ruleset.model import Candidate

pytestmark = pytest.mark.root

DATA = Path(__file__).with_name("extensions.txt")
BACKENDS = ("nft", "legacy")
FAMILIES_OF_LIBRARY = {"xt": frozenset(FAMILIES), "ipt": IPV4_ONLY, "ip6t": IPV6_ONLY}
NOT_EXTENSIONS = {"NAT"}
"""Libraries that hold others under names of their own."""

NOT_FOR = {("m", "osf"): IPV6_ONLY}
"""Families that an extension is not for, though its library does not say so."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A rule of the data: its line, the extension that it shows, and the code with which each backend refuses it."""

    line: int
    kind: str
    name: str
    saved_as: str
    text: str
    refused: Mapping[str, str]

    def uses(self, text: str) -> bool:
        """Whether a saved rule uses the extension."""
        return re.search(rf"(?:^| )-{self.kind} (?:{self.saved_as})(?: |$)", text) is not None


def read_data() -> Iterator[Entry]:
    """All rules of the data."""
    kind = name = saved_as = ""
    refused: dict[str, str] = {}
    for number, line in enumerate(DATA.read_text(encoding="utf-8").splitlines(), 1):
        if match := re.fullmatch(r"\[([mj]) (\S+)(?: = (\S+))?\]", line):
            kind, name, saved_as = match[1], match[2], match[3] or match[2]
        elif line.startswith("! "):
            code, *backends = line[2:].split()
            refused |= dict.fromkeys(backends or BACKENDS, code)
        elif line and not line.startswith("#"):
            yield Entry(number, kind, name, saved_as, line, refused)
            refused = {}


@cache
def installed() -> Mapping[tuple[str, str], frozenset[Family]]:
    """The matches and targets of this machine's iptables, and the families that each is for."""
    (folder,) = {path.parent for path in Path("/usr/lib").glob("*/xtables/libxt_*.so")}
    found: dict[tuple[str, str], frozenset[Family]] = {}
    for library in folder.glob("lib*_*.so"):
        prefix, _, name = library.stem.removeprefix("lib").partition("_")
        if prefix in FAMILIES_OF_LIBRARY and name not in NOT_EXTENSIONS:
            kind = "j" if name.isupper() or name == "standard" else "m"
            found[kind, name] = found.get((kind, name), frozenset()) | FAMILIES_OF_LIBRARY[prefix]
    return found


ENTRIES = tuple(entry for entry in read_data() if (entry.kind, entry.name) in installed())
REFUSED = [(entry, backend) for entry in ENTRIES for backend in entry.refused]


def candidate_of(files: Mapping[str, str]) -> Candidate:
    """Rule files, read and composed without a mistake."""
    composition = compose(read_rules(name, text.encode(), families_of_name(name)) for name, text in files.items())
    assert not composition.findings.errors, composition.findings[0]
    return composition.candidate


def file_of(entries: list[Entry]) -> dict[str, str]:
    """A rule file with each rule on the line that it has in the data."""
    lines = [""] * (max(entry.line for entry in entries) + 1)
    for entry in entries:
        lines[entry.line - 1] = entry.text
    return {"extensions.txt": "\n".join(lines)}


def texts_of(rehearsed: Canonical) -> dict[str, str]:
    """What was rehearsed, as a rule file for each family."""
    return {f"x.v{family.number}.rules": render(ruleset).text for family, ruleset in rehearsed.rulesets.items()}


@pytest.fixture(scope="module", params=BACKENDS)
def rehearsals(request: pytest.FixtureRequest) -> Iterator[Rehearsals]:
    """Rehearsals on each half of the kernel."""
    pool = NamespacePool()
    yield Rehearsals(request.param, pool)
    pool.close()


@pytest.fixture(scope="module")
def rehearsed(rehearsals: Rehearsals) -> Canonical:
    """What a kernel makes of all rules that it takes."""
    entries = [entry for entry in ENTRIES if rehearsals.backend not in entry.refused]
    outcome = rehearsals.rehearse(candidate_of(file_of(entries)))
    if isinstance(outcome, RehearsalRefused):
        pytest.fail("\n".join(map(str, outcome.findings)))
    return outcome


def test_every_extension_has_a_rule_in_each_of_its_families() -> None:
    """The data names every match and target that is installed, and shows it wherever it exists."""
    shown: dict[tuple[str, str], frozenset[Family]] = {}
    for entry in ENTRIES:
        reading = read_rules("x", entry.text.encode())
        (statement,) = reading.statements
        shown[entry.kind, entry.name] = shown.get((entry.kind, entry.name), frozenset()) | statement.families
    missing = {extension: families - shown.get(extension, frozenset()) for extension, families in installed().items()}
    assert {extension: families for extension, families in missing.items() if families} == NOT_FOR
    assert len(ENTRIES) > 200


def test_every_rule_comes_back_using_its_extension(rehearsals: Rehearsals, rehearsed: Canonical) -> None:
    """Each line became a rule in each of its families, with its origin, and uses what it is there for."""
    for entry in ENTRIES:
        if rehearsals.backend in entry.refused:
            continue
        (statement,) = read_rules("x", entry.text.encode()).statements
        for family in statement.families:
            made = [
                rule.text
                for rule in rules_in_order(rehearsed.rulesets[family])
                if rule.origin is not None and rule.origin.line == entry.line
            ]
            assert made and all(entry.uses(text) for text in made), f"{entry.text} became {made}"


def test_the_canonical_text_is_a_fixpoint_of_the_whole_road(rehearsals: Rehearsals, rehearsed: Canonical) -> None:
    """Read as rule files, composed and rehearsed again, the rules come out as they went in."""
    again = rehearsals.rehearse(candidate_of(texts_of(rehearsed)))
    assert isinstance(again, Canonical), again
    for family in FAMILIES:
        before, after = rehearsed.rulesets[family], again.rulesets[family]
        assert [rule.text for rule in rules_in_order(after)] == [rule.text for rule in rules_in_order(before)]
        assert after == with_stated_policies(before)
    assert texts_of(again) == texts_of(rehearsed)


def test_the_canonical_text_loads_where_the_road_composed_it_from_it(rehearsed: Canonical) -> None:
    """Composing what was rehearsed gives just that: no word of it means another family, chain or table to us."""
    for family in FAMILIES:
        ruleset = rehearsed.rulesets[family]
        again = candidate_of({f"x.v{family.number}.rules": render(ruleset).text}).rulesets[family]
        assert again == with_stated_policies(ruleset)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.value)
def test_every_rule_can_be_deleted_by_its_canonical_text(
    rehearsals: Rehearsals, rehearsed: Canonical, family: Family, tmp_path: Path
) -> None:
    """Plans delete rules so: the text must mean the rule to the program that printed it, for every extension."""
    (tmp_path / "all").write_text(render(rehearsed.rulesets[family]).text, encoding="utf-8")
    lines: list[str] = []
    for table in rehearsed.rulesets[family].tables.values():
        rules = [(chain.name, rule.text) for chain in table.chains.values() for rule in chain.rules]
        lines += [f"*{table.name}", *(f"-D {chain} {text}" for chain, text in rules), "COMMIT"]
    (tmp_path / "deletions").write_text("\n".join([*lines, ""]), encoding="utf-8")
    program = f"ip{'6' if family is Family.IPV6 else ''}tables-{rehearsals.backend}"
    script = '"$0-restore" -w 5 <all && "$0-restore" --noflush -w 5 <deletions && "$0-save"'
    finished = subprocess.run(
        ["unshare", "--net", "--", "/bin/sh", "-c", script, program],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XTABLES_LOCKFILE": str(tmp_path / "lock")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, f"{finished.stderr} {lines[_line_of(finished.stderr) - 1]}"
    assert "-A" not in finished.stdout


def _line_of(stderr: str) -> int:
    match = re.search(r"line:? (\d+)", stderr)
    return int(match[1]) if match else 1


@pytest.mark.parametrize(("entry", "backend"), REFUSED, ids=[f"{entry.text} {backend}" for entry, backend in REFUSED])
def test_what_a_rehearsal_refuses_is_refused_for_the_known_reason(entry: Entry, backend: str) -> None:
    """It is reported at its line, with the code of the data and a hint; should it load one day, the data is wrong."""
    pool = NamespacePool()
    try:
        outcome = Rehearsals(backend, pool).rehearse(candidate_of(file_of([entry])))
    finally:
        pool.close()
    assert isinstance(outcome, RehearsalRefused), f"{entry.text} is refused no more"
    (finding,) = outcome.findings
    assert (finding.code, finding.origin and finding.origin.line) == (entry.refused[backend], entry.line)
    assert finding.hint
