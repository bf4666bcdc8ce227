"""Why the kernel refuses a rule, as `check` explains it: the rule is tried in the other family, with a protocol and in
other chains."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.conftest import ROOT
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from pathlib import Path

CASES = (
    ("-A INPUT -m addrtype --dst-type BROADCAST -j DROP", "IPv4 takes this rule, IPv6 does not", "write -4 before it"),
    ("-4 -t mangle -A PREROUTING -j TPROXY --on-port 5 --tproxy-mark 1", "TPROXY needs", "-p tcp or -p udp"),
    ("-4 -A INPUT -m esp --espspi 1 -j DROP", "-m esp needs", "-p esp"),
    ("-4 -A INPUT -m ah --ahspi 1 -j DROP", "-m ah needs", "-p ah"),
    ("-4 -A INPUT -m tcpmss --mss 1:3 -j DROP", "-m tcpmss needs", "-p tcp"),
    ("-4 -t mangle -A INPUT -j TCPOPTSTRIP --strip-options wscale", "TCPOPTSTRIP needs", "-p tcp"),
    ("-4 -A FORWARD -p udp -j TCPMSS --set-mss 1400", "TCPMSS does not work with -p udp", "in place of -p udp"),
    ("-4 -A INPUT -m owner --uid-owner 3 -j ACCEPT", "refuses -m owner in chain INPUT", "OUTPUT of table filter"),
    (
        "-4 -t nat -A POSTROUTING -j CT --zone 3",
        "refuses CT in chain POSTROUTING",
        "PREROUTING and OUTPUT of table raw",
    ),
    ("-4 -A OUTPUT -m cgroup --path no/such -j DROP", "refuses -m cgroup with these", 'control group "no/such" exists'),
    ("-4 -A INPUT -m geoip --src-cc US -j DROP", "a match of xtables-addons", "install xtables-addons-common"),
    ("-4 -A INPUT -p tcp -j TARPIT", "a target of xtables-addons", "install xtables-addons-common"),
)
"""A line, a part of the message, and a part of the hint."""


def _check(folder: Path, backend: str, line: str) -> list[dict[str, Any]]:
    (folder / "a.rules").write_text(f"{line}\n")
    ended = subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", "check", str(folder), "--backend", backend, "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False,
    )  # fmt: skip
    findings: list[dict[str, Any]] = json.loads(ended.stdout)["findings"]
    return [finding for finding in findings if finding["severity"] == "error"]


@pytest.mark.parametrize(("line", "message", "hint"), CASES, ids=lambda text: text[:40])
@pytest.mark.either_backend
def test_the_reason_of_a_refusal_is_found_by_trying(
    tmp_path: Path, backend: str, line: str, message: str, hint: str
) -> None:
    """The message names the reason and the hint what to write; the family is named where one takes the rule."""
    (error,) = _check(tmp_path, backend, line)
    assert message in error["message"]
    assert hint in error["hint"]
    assert error["family"] in ("ipv4", "ipv6")


def test_a_rule_that_only_other_rules_make_fail_keeps_its_reason(tmp_path: Path, backend: str) -> None:
    """A jump to a chain that does not exist is not tried with protocols."""
    (error,) = _check(tmp_path, backend, "-4 -A INPUT -j NOWHERE")
    assert error["code"] == "undeclared-chain"
