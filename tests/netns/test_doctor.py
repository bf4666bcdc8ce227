"""fwguardctl doctor on a real kernel: what bites is told, who lives here is told, and nothing is changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.netns.conftest import SHIPPED, output
from tests.netns.test_known_programs import load

ROOT = Path(__file__).resolve().parents[2]
OTHER = {"nft": "legacy", "legacy": "nft"}


def doctor(folder: Path, *argv: str, settings: str = "") -> tuple[int, dict[str, Any]]:
    """The exit code and the document of fwguardctl doctor."""
    config = folder / "fwguardd.yaml"
    config.write_text(settings)
    command = [sys.executable, "-m", "fwguardd.ctl.main", "doctor", "--json", "--config", str(config)]
    ended = subprocess.run(
        [*command, "--rules-dir", str(SHIPPED), *argv], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert not ended.stderr
    return ended.returncode, json.loads(ended.stdout)


def codes(document: dict[str, Any]) -> set[str]:
    """The codes of what was found in the namespace; what this machine itself is like is not this test's."""
    machine = {"other-firewall", "post-up-rule", "kernel-log-closed", "conntrack-full", "conntrack-forgets"}
    return {finding["code"] for finding in document["findings"]} - machine


def test_a_clean_host_is_told_to_be_one(tmp_path: Path, backend: str) -> None:
    """No problem is found, and nothing could not be checked."""
    _, document = doctor(tmp_path, "--backend", backend)
    assert codes(document) <= {"backend-mismatch"}
    assert (document["citizens"], document["unseen"]) == ([], [])


def test_citizens_are_told_with_their_place(tmp_path: Path, backend: str) -> None:
    """Who has rules here, where, and whether they are preserved; the kernel is as it was."""
    load(backend, "docker-classic")
    subprocess.run([f"iptables-{backend}", "-A", "FORWARD", "-i", "lan0", "-j", "ACCEPT"], check=True)
    load(backend, "kube-proxy")
    before = output(f"iptables-{backend}-save -c").splitlines()
    _, document = doctor(tmp_path, "--backend", backend)
    found = {citizen["name"]: citizen for citizen in document["citizens"]}
    assert set(found) == {"docker", "kubernetes", "flannel"}
    assert found["docker"]["chains"] == 5
    assert "before our rules in ipv4 filter FORWARD" in found["docker"]["places"]
    assert "behind our rules in ipv4 filter FORWARD" in found["flannel"]["places"]
    assert codes(document) <= {"backend-mismatch"}
    code, document = doctor(tmp_path, "--backend", backend, settings="preserve: [defaults, without docker]\n")
    assert code == 1
    assert "not-preserved" in codes(document)
    kept = [line for line in output(f"iptables-{backend}-save -c").splitlines() if not line.startswith("#")]
    assert kept == [line for line in before if not line.startswith("#")]


def test_rules_elsewhere_bite(tmp_path: Path, backend: str) -> None:
    """Both the other backend's and a hand-made table, each with the command that shows it."""
    subprocess.run([f"ip6tables-{OTHER[backend]}", "-A", "INPUT", "-j", "DROP"], check=True)
    table = "table inet mine { chain in { type filter hook input priority -5; policy drop; }; }"
    subprocess.run(["nft", table], check=True)
    code, document = doctor(tmp_path, "--backend", backend)
    assert code == 1
    told = [finding for finding in document["findings"] if finding["code"] == "rules-elsewhere"]
    assert len(told) == 2
    assert any(
        "nft list table inet mine" in finding["hint"] and "priority -5" in finding["message"] for finding in told
    )


def test_what_iptables_cannot_show_is_told(tmp_path: Path) -> None:
    """A rule that only nft can say: fwguardd would load nothing."""
    subprocess.run(["iptables-nft", "-A", "INPUT", "-j", "ACCEPT"], check=True)
    subprocess.run(["nft", "add rule ip filter INPUT quota over 1 mbytes drop"], check=True)
    code, document = doctor(tmp_path, "--backend", "nft")
    assert (code, "unknown-content" in codes(document)) == (1, True)


def test_a_hidden_table_that_no_rule_file_names_is_no_trouble(tmp_path: Path) -> None:
    """It is noted, with its family, and not called a thing that bites."""
    subprocess.run(["nft", "table ip6 nat { chain x { masquerade; }; }"], check=True)
    _, document = doctor(tmp_path, "--backend", "nft")
    assert "unknown-content" not in codes(document)
    assert [note for note in document["notes"] if note.startswith("table ip6 nat holds what iptables cannot show")]
    assert document["unseen"] == []


def test_whoever_is_not_root_learns_what_was_not_seen() -> None:
    """It runs for anybody, and says what it could not see."""
    code = (
        "import os, sys; from fwguardd.ctl.main import main; os.setgid(65534); os.setuid(65534);"
        "sys.exit(main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", code, "doctor", "--json", "--rules-dir", "/nonexistent"]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    document = json.loads(ended.stdout)
    assert any("takes root" in line for line in document["unseen"])
    assert "no-directory" in codes(document)
