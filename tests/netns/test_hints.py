"""The hints of `fwguardctl check`, followed: each mistake has its code, and what the hint says to write loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.waiting import LONGEST

ROOT = Path(__file__).resolve().parents[2]

MENDED = (
    ("-A INPUT -p tcp --dport 80,443 -j ACCEPT", "bad-port", "-A INPUT -p tcp -m multiport --dports 80,443 -j ACCEPT"),
    ("-A INPUT -p tcp --dport 80-90 -j ACCEPT", "bad-port", "-A INPUT -p tcp --dport 80:90 -j ACCEPT"),
    ("-A INPUT -m tcp --dport 1 -j ACCEPT", "port-without-protocol", "-A INPUT -p tcp -m tcp --dport 1 -j ACCEPT"),
    (
        "-A INPUT -p tcp --dports 2,3 -j ACCEPT",
        "ports-without-multiport",
        "-A INPUT -p tcp -m multiport --dports 2,3 -j ACCEPT",
    ),
    ("-A INPUT -p tcp -dport 4 -j ACCEPT", "attached-value", "-A INPUT -p tcp --dport 4 -j ACCEPT"),
    ("-A INPUT -p tcp --dprot 5 -j ACCEPT", "unknown-option", "-A INPUT -p tcp --dport 5 -j ACCEPT"),
    ("-A INPUT --ctstate NEW -j ACCEPT", "unknown-option", "-A INPUT -m conntrack --ctstate NEW -j ACCEPT"),
    ("-A INPUT -j DROP --reject-with tcp-reset", "unknown-option", "-A INPUT -p tcp -j REJECT --reject-with tcp-reset"),
    ("-A INPUT --syn -j DROP", "unknown-option", "-A INPUT -p tcp --syn -j DROP"),
    ("-A INPUT -p tpc --dport 6 -j ACCEPT", "bad-protocol", "-A INPUT -p tcp --dport 6 -j ACCEPT"),
    ("-A INPUT -p tcp --dport 7 -j ACCPET", "undeclared-chain", "-A INPUT -p tcp --dport 7 -j ACCEPT"),
    ("-A INPUT -p tcp --dport 8 ACCEPT", "bad-argument", "-A INPUT -p tcp --dport 8 -j ACCEPT"),
    ("-A input -p tcp --dport 9 -j ACCEPT", "undeclared-chain", "-A INPUT -p tcp --dport 9 -j ACCEPT"),
    ("-A guests -i wlan0 -j ACCEPT", "undeclared-chain", "-N guests\n-A guests -i wlan0 -j ACCEPT\n-A INPUT -j guests"),
    ("-A INPUT -m contrack --ctstate NEW", "unknown-match", "-A INPUT -m conntrack --ctstate NEW -j ACCEPT"),
    ("-A INPUT -m conntrack --ctstate NWE", "bad-value", "-A INPUT -m conntrack --ctstate RELATED -j ACCEPT"),
    ("-A INPUT -m limit --limit 5/minutes", "bad-value", "-A INPUT -m limit --limit 5/minute -j ACCEPT"),
    ("-A INPUT -s 10.0.0.0/33 -j DROP", "bad-address", "-A INPUT -s 10.0.0.0/32 -j DROP"),
    ("-A INPUT -s 10.0.0.256 -j DROP", "bad-address", "-A INPUT -s 10.0.0.255 -j DROP"),
    ("-A INPUT -s 10.0.0.* -j DROP", "bad-address", "-A INPUT -s 10.0.0.0/24 -j DROP"),
    (
        "-A INPUT -s 10.0.0.1-10.0.0.9 -j DROP",
        "bad-address",
        "-A INPUT -m iprange --src-range 10.0.0.1-10.0.0.9 -j DROP",
    ),
    ("-A INPUT -s fe80::1%eth0 -j DROP", "bad-address", "-A INPUT -s fe80::1 -i eth0 -j DROP"),
    ("-A INPUT -s 10.0.0.0 255.0.0.0 -j DROP", "bad-argument", "-A INPUT -s 10.0.0.0/255.0.0.0 -j DROP"),
    ("-A INPUT -o eth0 -j DROP", "wrong-interface", "-A INPUT -i eth0 -j DROP"),
    ("-A INPUT -j MASQUERADE", "refused-by-kernel", "-t nat -A POSTROUTING -j MASQUERADE"),
    (
        "-A INPUT -j REJECT --reject-with tcp-reset",
        "refused-by-kernel",
        "-A INPUT -p tcp -j REJECT --reject-with tcp-reset",
    ),
    ("-A PREROUTING -p tcp -j REDIRECT", "undeclared-chain", "-t nat -A PREROUTING -p tcp -j REDIRECT"),
    ("-A INPUT -p icmp -m icmp -j DROP", "missing-option", "-A INPUT -p icmp -m icmp --icmp-type 8 -j DROP"),
)
"""A line, the code of what is wrong with it, and the line as its hint has it."""


def _check(folder: Path, backend: str, lines: list[str]) -> dict[str, Any]:
    folder.mkdir()
    (folder / "a.rules").write_text("\n".join(lines) + "\n")
    ended = subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", "check", str(folder), "--backend", backend, "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False,
    )  # fmt: skip
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def test_a_refused_rule_gets_no_warning_of_what_it_would_do(tmp_path: Path, backend: str) -> None:
    """One mistake is reported once: an unknown name, and a target that lacks its -j."""
    shown = _check(tmp_path / "rules", backend, ["-A INPUT -s no.such.invalid -j ACCEPT", "-A INPUT -i lo ACCEPT"])
    assert [finding["code"] for finding in shown["findings"]] == ["unresolvable-name", "bad-argument"]


def test_each_mistake_is_reported_once_and_its_hint_holds(tmp_path: Path, backend: str) -> None:
    """On both backends: one error for each line, with a code of its own; and the mended lines load."""
    # A part at a time: no more than twenty are reported at once.
    for number in range(0, len(MENDED), 15):
        part = MENDED[number : number + 15]
        bad = _check(tmp_path / f"bad-{number}", backend, [line for line, _, _ in part])
        errors = [(shown["text"], shown["code"]) for shown in bad["findings"] if shown["severity"] == "error"]
        assert errors == [(line, code) for line, code, _ in part]
        assert all(shown["hint"] for shown in bad["findings"])
        assert _check(tmp_path / f"good-{number}", backend, [line for _, _, line in part])["ok"]
