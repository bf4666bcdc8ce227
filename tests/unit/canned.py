"""Results as the daemon gives them, one for each verb, and a performer that answers with them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.control.documents import (
        DriftDocument,
        FindingDocument,
        HistoryDocument,
        InForceDocument,
        OutcomeDocument,
        PendingDocument,
        ShowDocument,
        StatusDocument,
    )
    from fwguardd.control.protocol import Request
    from fwguardd.control.server import Caller

FINDING: Final[FindingDocument] = {
    "file": "/etc/fwguard.d/20-web.rules", "line": 14, "column": None, "severity": "error", "code": "undeclared-chain",
    "message": "jump to chain WEB, which no file declares", "hint": 'declare it with ":WEB - [0:0]"',
    "text": "-A INPUT -j WEB", "family": None,
}  # fmt: skip
APPLIED: Final[OutcomeDocument] = {
    "outcome": "applied", "revision": 42, "rules": {"ipv4": 17, "ipv6": 33}, "changes": 2, "findings": [],
    "reason": None, "pending": None, "sentence": "revision 42 in force, 50 rules",
}  # fmt: skip
REFUSED: Final[OutcomeDocument] = {
    **APPLIED, "outcome": "refused", "revision": 41, "changes": 0, "findings": [FINDING],
    "sentence": "revision 41 stays in force, 50 rules; files refused: the first finding",
}  # fmt: skip
FAILED: Final[OutcomeDocument] = {
    **REFUSED, "outcome": "failed", "findings": [], "sentence": "revision 41 stays in force, 50 rules",
    "reason": "the lock of iptables is held by process 812 (apt)",
}  # fmt: skip
PENDING: Final[PendingDocument] = {"revision": 42, "back_to": 41, "seconds_left": 60.0}
IN_FORCE: Final[InForceDocument] = {
    "revision": 41, "since": 1_780_000_000.4, "cause": "reload", "rules": {"ipv4": 17, "ipv6": 33}, "kind": "rules",
}  # fmt: skip
STATUS: Final[StatusDocument] = {
    "version": "1.2.3", "backend": "nft", "iptables": "1.8.9", "rules_dir": "/etc/fwguard.d",
    "sentence": "in-force: revision 41, 50 rules, compared at 20:26:41",
    "state": "in-force", "state_facts": "revision 41, 50 rules, compared at 20:26:41", "compared": 1_780_000_001.0,
    "files": "applied", "files_why": "",
    "in_force": IN_FORCE,
    "drift": {"count": 0, "repair": True, "paused_seconds": None, "differences": []},
    "last_refusal": None, "pending": None, "held": None,
    "denials": {
        "source": "kmsg",
        "position": "4711",
        "lines": 123,
        "denied": 120,
        "logged": 3,
        "unparsed": 0,
        "told": 20,
        "summarised": 100,
        "waiting": 3,
        "lost": 0,
        "dropped_events": 0,
    },
}  # fmt: skip
HISTORY: Final[HistoryDocument] = {
    "revisions": [
        {"revision": 42, "when": 1_780_003_600, "cause": "open", "by": "uid 0, pid 812 (fwguardctl)", "kind": "open",
         "rules": {"ipv4": 0, "ipv6": 0}, "files": 0, "in_force": True},
        {"revision": 9, "when": 1_780_000_000, "cause": "files", "by": None, "kind": "rules",
         "rules": {"ipv4": 17, "ipv6": 33}, "files": 4, "in_force": False},
    ],
    "damaged": ["revisions/8"],
}  # fmt: skip
SHOWN: Final[ShowDocument] = {
    "revision": 41, "when": 1_780_000_000, "cause": "reload", "by": "uid 0, pid 812 (fwguardctl)", "backend": "nft",
    "iptables": "1.8.9", "kernel": "6.1.0-21-amd64",
    "files": [{"path": "/etc/fwguard.d/10-base.rules", "text": "# hello\n-A INPUT\t-j ACCEPT\n"}],
    "texts": {"ipv4": "*filter\nCOMMIT\n", "ipv6": "*filter\nCOMMIT\n"},
}  # fmt: skip
DRIFT: Final[DriftDocument] = {
    "count": 2,
    "differences": ["- ipv4 filter -A INPUT -j DROP", "+ ipv4 filter -A INPUT -j ACCEPT"],
}


class Canned:
    """Answers each verb with a fixed result, or raises a fixed error, and keeps which requests came."""

    def __init__(self) -> None:
        self.results: dict[str, Mapping[str, Any] | Exception] = {
            "status": STATUS, "reload": APPLIED, "confirm": APPLIED, "rollback": APPLIED, "open": APPLIED,
            "hold": APPLIED,
            "history": HISTORY, "show": SHOWN, "drift": DRIFT, "pause": {"paused_seconds": 900.0},
            "resume": {"paused_seconds": None},
        }  # fmt: skip
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def __call__(self, request: Request, caller: Caller) -> Mapping[str, Any]:
        """Answer."""
        assert caller.uid == os.getuid()
        self.asked.append((request.verb.name, dict(request.args)))
        result = self.results[request.verb.name]
        if isinstance(result, Exception):
            raise result
        return result
