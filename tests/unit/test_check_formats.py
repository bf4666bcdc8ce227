"""`fwguardctl check --static` and the formats of its findings, also on terminals that are not UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fwguardd.ctl.finding_formats import github_annotations, sarif
from fwguardd.ruleset.model import Family, Finding, Findings, Origin, Severity

ROOT = Path(__file__).resolve().parents[2]
ODD = Finding("bad-port", "100% wrong,\nreally", Origin("a,b:c.rules", 3), hint="correct → it", column=7)
FINDINGS = Findings(
    [ODD, Finding("no-rules", "none", Origin("/etc/a b.rules", 0), Severity.WARNING, family=Family.IPV6)]
)


def _check(folder: Path, *options: str, encoding: str = "utf-8", path: str = os.environ["PATH"]) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", "check", *options, str(folder)],
        cwd=ROOT, capture_output=True, timeout=60, check=False,
        env={"PATH": path, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert not ended.stderr, ended.stderr
    return ended.returncode, ended.stdout.decode(encoding)


def test_annotations_escape_what_github_would_misread() -> None:
    """A comma or colon in a path, and a line break or percent sign in a message, end nothing early."""
    assert list(github_annotations(FINDINGS)) == [
        "::warning file=/etc/a b.rules,title=no-rules::none (ipv6)",
        "::error file=a%2Cb%3Ac.rules,line=3,col=7,title=bad-port::100%25 wrong,\\nreally; correct → it",
    ]


def test_sarif_has_what_its_readers_require() -> None:
    """Version, tool, one rule for each code; each result with level, message and place, and no line 0."""
    log = sarif(FINDINGS)
    (run,) = log["runs"]
    assert log["version"] == "2.1.0"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["bad-port", "no-rules"]
    places = [result["locations"][0]["physicalLocation"] for result in run["results"]]
    assert places == [
        {"artifactLocation": {"uri": "file:///etc/a%20b.rules"}},
        {"artifactLocation": {"uri": "a%2Cb%3Ac.rules"}, "region": {"startLine": 3, "startColumn": 7}},
    ]
    assert [result["level"] for result in run["results"]] == ["warning", "error"]


@pytest.mark.parametrize("encoding", ["iso-8859-1", "ascii", "utf-8", "cp437"])
def test_findings_are_shown_on_any_terminal(tmp_path: Path, encoding: str) -> None:
    """An arrow that the encoding lacks is written in ASCII; the code of the exit is the same."""
    (tmp_path / "a.rules").write_text("-A INPUT -j OUTPUT\n# Grüße\n-A INPUT -ieth0 -j ACCEPT\n")
    code, text = _check(tmp_path, "--static", encoding=encoding)
    assert code == 1
    assert ("→" in text) == (encoding == "utf-8")
    assert ("-> jump to a chain" in text) == (encoding != "utf-8")


def test_a_static_check_needs_no_iptables(tmp_path: Path) -> None:
    """It says that nothing was rehearsed; a rule that only iptables refuses passes."""
    (tmp_path / "a.rules").write_text("-P INPUT ACCEPT\n-A INPUT -p nonsense -j ACCEPT\n")
    code, text = _check(tmp_path, "--static", path="/nonexistent")
    assert code == 0
    assert "not rehearsed" in text
    code, text = _check(tmp_path, "--static", "--json", path="/nonexistent")
    document = json.loads(text)
    assert (document["ok"], document["rules"], document["backend"]) == (True, {"ipv4": 1, "ipv6": 1}, None)


def test_a_document_lists_so_many_findings(tmp_path: Path) -> None:
    """Of thousands of findings a document lists a part, and counts all."""
    for number in range(120):
        (tmp_path / f"{number}.rules").write_text("nonsense here\n-j\n" * 1 + "-A INPUT -s 1.2.3.4 ! \n" + "-A\n" * 20)
    _, text = _check(tmp_path, "--static", "--json")
    document = json.loads(text)
    assert len(document["findings"]) == 1_000
    assert document["errors"] + document["warnings"] > 1_000
