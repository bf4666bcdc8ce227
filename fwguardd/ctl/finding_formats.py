"""Findings in the formats of continuous integration: annotations of GitHub, and SARIF 2.1.0 (OASIS)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fwguardd import __version__
from fwguardd.escaping import printable
from fwguardd.ruleset.model import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fwguardd.ruleset.model import Finding

_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning"}


def github_annotations(findings: Iterable[Finding]) -> Iterator[str]:
    """A workflow command of GitHub Actions for each finding: ``::error file=F,line=N,title=CODE::MESSAGE``."""
    for finding in findings:
        properties = [*_github_place(finding), f"title={_property(finding.code)}"]
        yield f"::{_LEVELS[finding.severity]} {','.join(properties)}::{_escaped(_sentence(finding))}"


def _github_place(finding: Finding) -> Iterator[str]:
    if finding.origin is None:
        return
    yield f"file={_property(finding.origin.path)}"
    if finding.origin.line:
        yield f"line={finding.origin.line}"
    if finding.column:
        yield f"col={finding.column}"


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def _escaped(text: str) -> str:
    """The text as GitHub Actions reads it in one line."""
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def sarif(findings: Sequence[Finding]) -> dict[str, Any]:
    """A SARIF log with one run: each code is a rule, each finding a result."""
    codes = sorted({finding.code for finding in findings})
    driver = {"name": "fwguardctl", "version": __version__, "rules": [{"id": code} for code in codes]}
    results = [_sarif_result(finding) for finding in findings]
    return {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _sarif_result(finding: Finding) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "level": _LEVELS[finding.severity],
        "message": {"text": _sentence(finding)},
    }
    if finding.origin is not None:
        place: dict[str, Any] = {"artifactLocation": {"uri": _uri(finding.origin.path)}}
        if finding.origin.line:
            place["region"] = _sarif_region(finding.origin.line, finding.column)
        result["locations"] = [{"physicalLocation": place}]
    return result


def _sarif_region(line: int, column: int) -> dict[str, int]:
    if column:
        return {"startLine": line, "startColumn": column}
    return {"startLine": line}


def _uri(path: str) -> str:
    """The path as a reference relative to the directory of the run, or as a file URI."""
    quoted = quote(path, errors="surrogateescape")
    if path.startswith("/"):
        return f"file://{quoted}"
    return quoted


def _sentence(finding: Finding) -> str:
    text = finding.message
    if finding.family is not None:
        text = f"{text} ({finding.family.value})"
    if finding.hint:
        text = f"{text}; {finding.hint}"
    return text
