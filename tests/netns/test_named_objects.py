"""Rules that name nfacct objects and timeout policies: rehearsed with copies of those that the host has."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd.kernel.named_objects import NamedObject, existing_objects, make_copies
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
OBJECTS = (
    NamedObject("nfacct", "http-in"),
    NamedObject("timeout", "web", socket.AF_INET, socket.IPPROTO_TCP),
    NamedObject("timeout", "dns6", socket.AF_INET6, socket.IPPROTO_UDP),
)
GOOD = (
    "-A INPUT -m nfacct --nfacct-name http-in -j ACCEPT",
    "-4 -t raw -A PREROUTING -p tcp -j CT --timeout web",
    "-6 -t raw -A PREROUTING -p udp -j CT --timeout dns6",
)
BAD = (
    "-4 -A INPUT -m nfacct --nfacct-name missing -j ACCEPT",
    "-4 -t raw -A PREROUTING -p udp -j CT --timeout web",
    "-4 -t raw -A PREROUTING -p tcp -j CT --timeout missing",
)
NOBODY = 65534


def _check(folder: Path, backend: str, lines: Sequence[str], user: int | None = None) -> dict[str, Any]:
    (folder / "a.rules").write_text("\n".join(lines) + "\n")
    ended = subprocess.run(
        [sys.executable, "-m", "fwguardd.ctl.main", "check", str(folder), "--backend", backend, "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=LONGEST, check=False,
        user=user, group=user, extra_groups=[] if user else None,
    )  # fmt: skip
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def test_objects_are_read_as_they_were_made() -> None:
    """With family and protocol; one that does not exist is left out, and making one again changes nothing."""
    make_copies(OBJECTS)
    make_copies(OBJECTS)
    named = [(one.kind, one.name) for one in OBJECTS]
    assert existing_objects([*named, ("nfacct", "missing"), ("timeout", "missing")]) == list(OBJECTS)


def test_rules_load_that_name_what_the_host_has(tmp_path: Path, backend: str) -> None:
    """The rehearsal has copies of the objects, and of no others."""
    make_copies(OBJECTS)
    assert _check(tmp_path, backend, GOOD)["ok"]
    refused = _check(tmp_path, backend, (*GOOD, *BAD))
    assert [finding["text"] for finding in refused["findings"] if finding["severity"] == "error"] == list(BAD)


def test_a_user_who_cannot_read_the_objects_gets_a_warning(public_folder: Path, backend: str) -> None:
    """The rules are rehearsed as if the objects existed."""
    checked = _check(public_folder, backend, GOOD, NOBODY)
    assert checked["ok"], checked
    assert {finding["code"] for finding in checked["findings"]} == {"unseen-set"}
