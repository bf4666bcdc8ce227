"""`fwguardctl check --static` and the formats of its findings, also on terminals that are not UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fwguardd.ctl.finding_formats import github_annotations, sarif
from fwguardd.ctl.offline_verbs import what_a_reload_does
from fwguardd.ruleset.model import Family, Finding, Findings, Origin, Severity
from tests.waiting import LONGEST

ROOT = Path(__file__).resolve().parents[2]
ODD = Finding("bad-port", "100% wrong,\nreally", Origin("a,b:c.rules", 3), hint="correct → it", column=7)
FINDINGS = Findings(
    [ODD, Finding("no-rules", "none", Origin("/etc/a b.rules", 0), Severity.WARNING, family=Family.IPV6)]
)


def _check(folder: Path, *options: str, encoding: str = "utf-8", path: str = os.environ["PATH"]) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", "check", *options, str(folder)],
        cwd=ROOT, capture_output=True, timeout=LONGEST, check=False,
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


SARIF: dict[str, dict[str, Any]] = {
    "log": {"$schema": str, "version!": ["2.1.0"], "runs!": ["*run"]},
    "run": {"tool!": "tool", "results": ["*result"]},
    "tool": {"driver!": "component"},
    "component": {"name!": str, "version": str, "rules": ["*rule"]},
    "rule": {"id!": str},
    "result": {
        "ruleId": str, "level": ["none", "note", "warning", "error"], "message!": "message", "locations": ["*location"]
    },
    "message": {"text!": str},
    "location": {"physicalLocation": "place"},
    "place": {"artifactLocation!": "artifact", "region": "region"},
    "artifact": {"uri": str},
    "region": {"startLine": int, "startColumn": int},
}  # fmt: skip
"""The part of the published schema of SARIF 2.1.0 (OASIS) that is written. No object may have other properties; those
with ``!`` are required; numbers are 1 at least."""


def _assert_is(value: Any, form: Any) -> None:
    """The value is of this form: a type, an object of `SARIF`, one of some texts, or a list of objects."""
    if isinstance(form, type):
        assert isinstance(value, form)
        assert value != 0
    elif isinstance(form, str):
        properties = SARIF[form]
        assert set(value) <= {name.rstrip("!") for name in properties}
        assert set(value) >= {name.rstrip("!") for name in properties if name.endswith("!")}
        for name, inner in properties.items():
            if name.rstrip("!") in value:
                _assert_is(value[name.rstrip("!")], inner)
    elif form[0].startswith("*"):
        assert isinstance(value, list)
        for one in value:
            _assert_is(one, form[0][1:])
    else:
        assert value in form


def test_sarif_is_in_the_published_form(tmp_path: Path) -> None:
    """Of findings with and without place, and of none at all; rules are listed once."""
    (tmp_path / "a ü.rules").write_text("-A INPUT -p tcp --dport 70000 -j ACCEPT\n-A INPUT -s 1.2.3.4/0 -j X\n" * 3)
    _, printed = _check(tmp_path, "--static", "--format", "sarif")
    for log in (sarif(FINDINGS), sarif(Findings([])), json.loads(printed)):
        _assert_is(log, "log")
        rules = [rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]]
        assert len(rules) == len(set(rules))
        uris = [place["physicalLocation"]["artifactLocation"]["uri"] for result in log["runs"][0]["results"]
                for place in result.get("locations", ())]  # fmt: skip
        assert all(uri.isascii() and " " not in uri for uri in uris)


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
    _, text = _check(tmp_path, "--static", "--format", "github")
    assert text.splitlines()[-1].startswith("::notice title=static::not rehearsed")


def test_a_document_lists_so_many_findings(tmp_path: Path) -> None:
    """Of thousands of findings a document lists a part, and counts all."""
    for number in range(120):
        (tmp_path / f"{number}.rules").write_text("nonsense here\n-j\n" * 1 + "-A INPUT -s 1.2.3.4 ! \n" + "-A\n" * 20)
    _, text = _check(tmp_path, "--static", "--json")
    document = json.loads(text)
    assert len(document["findings"]) == 1_000
    assert document["errors"] + document["warnings"] > 1_000


def test_an_error_in_a_set_file_concerns_its_set_alone() -> None:
    """The last line says what a reload does: errors of set files leave the sets as they are, others everything."""
    of_set = Finding("bad-set", "no address", Origin("/etc/fwguard.d/bad.set", 3))
    assert "applies the rules" in what_a_reload_does([of_set])
    refused = "A reload would be refused, and the firewall would stay as it is."
    assert what_a_reload_does([of_set, ODD]) == what_a_reload_does([ODD]) == refused
