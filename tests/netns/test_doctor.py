"""fwguardctl doctor on a real kernel: it finds problems and known programs, and changes nothing."""

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
    """The codes of the findings about the namespace, without those about this machine."""
    machine = {"other-firewall", "post-up-rule", "kernel-log-closed", "conntrack-full", "conntrack-forgets"}
    return {finding["code"] for finding in document["findings"]} - machine


def test_a_clean_host_has_no_problems(tmp_path: Path, backend: str) -> None:
    """No problem is found, and everything was checked."""
    _, document = doctor(tmp_path, "--backend", backend)
    assert codes(document) <= {"backend-mismatch"}
    assert (document["citizens"], document["unseen"]) == ([], [])


def test_known_programs_are_found_with_their_places(tmp_path: Path, backend: str) -> None:
    """Each known program, the places of its rules, and whether they are preserved; the kernel is unchanged. Before the
    first load the rules of unknown programs are listed."""
    load(backend, "docker-classic")
    subprocess.run([f"iptables-{backend}", "-A", "FORWARD", "-i", "lan0", "-j", "ACCEPT"], check=True)
    load(backend, "kube-proxy")
    before = output(f"iptables-{backend}-save -c").splitlines()
    _, document = doctor(tmp_path, "--backend", backend)
    found = {program["name"]: program for program in document["citizens"]}
    assert set(found) == {"docker", "kubernetes", "flannel"}
    assert found["docker"]["chains"] == 5
    assert "before our rules in ipv4 filter FORWARD" in found["docker"]["places"]
    assert "after our rules in ipv4 filter FORWARD" in found["flannel"]["places"]
    assert {"unknown-rules"} <= codes(document) <= {"backend-mismatch", "unknown-rules"}
    (unknown,) = [finding for finding in document["findings"] if finding["code"] == "unknown-rules"]
    assert "1 rule of other programs: ipv4 filter -A FORWARD -i lan0 -j ACCEPT" in unknown["message"]
    code, document = doctor(tmp_path, "--backend", backend, settings="preserve: [defaults, without docker]\n")
    assert code == 1
    assert "not-preserved" in codes(document)
    kept = [line for line in output(f"iptables-{backend}-save -c").splitlines() if not line.startswith("#")]
    assert kept == [line for line in before if not line.startswith("#")]


def test_rules_in_other_tables_are_a_problem(tmp_path: Path, backend: str) -> None:
    """A table of the other backend and a hand-made one, each with the command that prints it."""
    subprocess.run([f"ip6tables-{OTHER[backend]}", "-A", "INPUT", "-j", "DROP"], check=True)
    table = "table inet mine { chain in { type filter hook input priority -5; policy drop; }; }"
    subprocess.run(["nft", table], check=True)
    code, document = doctor(tmp_path, "--backend", backend)
    assert code == 1
    found = [finding for finding in document["findings"] if finding["code"] == "rules-elsewhere"]
    assert len(found) == 2
    assert any(
        "nft list table inet mine" in finding["hint"] and "priority -5" in finding["message"] for finding in found
    )


def test_content_that_iptables_cannot_show_is_a_problem(tmp_path: Path) -> None:
    """A rule that only nft can express: fwguardd would load nothing."""
    subprocess.run(["iptables-nft", "-A", "INPUT", "-j", "ACCEPT"], check=True)
    subprocess.run(["nft", "add rule ip filter INPUT quota over 1 mbytes drop"], check=True)
    code, document = doctor(tmp_path, "--backend", "nft")
    assert (code, "unknown-content" in codes(document)) == (1, True)


def test_a_hidden_table_that_no_rule_file_names_is_a_note(tmp_path: Path) -> None:
    """It is a note with the table and its family, not a problem."""
    subprocess.run(["nft", "table ip6 nat { chain x { masquerade; }; }"], check=True)
    _, document = doctor(tmp_path, "--backend", "nft")
    assert "unknown-content" not in codes(document)
    assert [note for note in document["notes"] if note.startswith("table ip6 nat holds what iptables cannot show")]
    assert document["unseen"] == []


def test_without_root_it_lists_what_was_not_checked() -> None:
    """It works for every user, and lists what it could not check."""
    code = (
        "import os, sys; from fwguardd.ctl.main import main; os.setgid(65534); os.setuid(65534);"
        "sys.exit(main(sys.argv[1:]))"
    )
    argv = [sys.executable, "-c", code, "doctor", "--json", "--rules-dir", "/nonexistent"]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    document = json.loads(ended.stdout)
    assert any("run it as root" in line for line in document["unseen"])
    assert "no-directory" in codes(document)
