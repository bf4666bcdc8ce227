"""Findings, whatever they are made of: merging is idempotent, and neither order nor grouping changes the outcome."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fwguardd.ruleset.model import FAMILIES, Finding, Findings, Origin, Severity

ORIGINS = st.none() | st.builds(Origin, st.sampled_from(["a.rules", "b.rules"]), st.integers(0, 3))
FINDINGS = st.builds(
    Finding,
    st.sampled_from(["bad-port", "no-target"]),
    st.sampled_from(["one message", "another message"]),
    ORIGINS,
    st.sampled_from(Severity),
    family=st.none() | st.sampled_from(FAMILIES),
)
MANY = st.lists(FINDINGS, max_size=12)


def identities(findings: Findings) -> list[tuple[object, ...]]:
    """What tells one finding from another, with the family that it names."""
    return [(found.origin or found.message, found.code, found.severity, found.family) for found in findings]


@given(MANY)
def test_merging_again_changes_nothing(found: list[Finding]) -> None:
    """Findings of findings are the same findings."""
    findings = Findings(found)
    assert Findings(findings) == findings


@given(MANY, st.randoms(use_true_random=False))
def test_the_order_of_discovery_does_not_matter(found: list[Finding], random: object) -> None:
    """Whichever step found them first, the same places and codes come out, with the same families."""
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert set(identities(Findings(shuffled))) == set(identities(Findings(found)))


@given(MANY, st.integers(0, 12))
def test_findings_may_be_merged_in_groups(found: list[Finding], cut: int) -> None:
    """Merging the findings of two steps and then both is the same as merging all at once."""
    grouped = Findings((*Findings(found[:cut]), *Findings(found[cut:])))
    assert identities(grouped) == identities(Findings(found))


@given(MANY)
def test_every_finding_is_an_error_or_a_warning(found: list[Finding]) -> None:
    """Errors and warnings together are all findings, in the order of their places."""
    findings = Findings(found)
    assert {*findings.errors, *findings.warnings} == set(findings)
    assert [one.place for one in findings] == sorted(one.place for one in findings)
    assert {one.severity for one in findings.errors} <= {Severity.ERROR}


@given(MANY)
def test_listing_once_per_file_keeps_every_file(found: list[Finding]) -> None:
    """A code that is listed once per file is listed for each file that it is about; all others stay."""
    findings = Findings(found)
    listed = findings.once_per_file({"no-target"})
    assert [one for one in listed if one.code != "no-target"] == [one for one in findings if one.code != "no-target"]
    paths = [one.place.path for one in listed if one.code == "no-target"]
    assert paths == sorted({one.place.path for one in findings if one.code == "no-target"})
