"""A week of a host, invented: the facts from which the reports in tests/golden/report are made.

The journal is given as ``journalctl -o json`` prints it, and the answers as the daemon gives them.
"""

from __future__ import annotations

import random
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from fwguardd import events
from fwguardd.ctl.exposure import Exposure
from fwguardd.ctl.report.account import Account
from fwguardd.ctl.report.facts import Facts, MissingPart, SetFact
from fwguardd.packets.clients import ANYWHERE
from fwguardd.packets.endpoints import ListeningSocket, Program
from fwguardd.packets.exposure import ExposedSocket, OpenRule, Reach
from fwguardd.packets.model import Step
from fwguardd.ruleset.model import Origin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.control.documents import HistoryDocument, RevisionDocument, RuleCountDocument, StatusDocument
    from fwguardd.events import EventKind

NOW: Final = 1795860000
"""2026-11-28 10:00 UTC."""

DAY: Final = 86400
SINCE: Final = NOW - 7 * DAY
RULES: Final = "/etc/fwguard.d"


def entry(when: float, kind: EventKind, message: str, **fields: Any) -> dict[str, Any]:
    """An entry of the journal: numbers are texts there, and a list with one element is that element."""
    found: dict[str, Any] = {
        "__REALTIME_TIMESTAMP": f"{when * 1_000_000:.0f}",
        "MESSAGE": message,
        "FWGUARD_EVENT": kind.name,
    }
    for name, value in fields.items():
        found[f"FWGUARD_{name.upper()}"] = value if isinstance(value, list) and len(value) > 1 else _one(value)
    return found


def _one(value: Any) -> str:
    if isinstance(value, list):
        (value,) = value
    return str(value)


_PORTS: Final = (
    (22, 34), (23, 22), (445, 9), (3389, 8), (8080, 6), (5900, 4), (6379, 4), (1433, 3), (5060, 3),
    (2375, 2), (9200, 2),
)  # fmt: skip
_NETS: Final = (("203.0.113", 40), ("198.51.100", 22), ("192.0.2", 12), ("233.252.0", 6))
_HOURS: Final = (5, 4, 4, 6, 9, 7, 5, 4, 3, 3, 4, 5, 6, 6, 5, 4, 5, 7, 9, 12, 14, 12, 9, 7)
"""How much is denied in each hour of a day."""


def denials() -> Iterator[dict[str, Any]]:
    """Denied packets of seven days, most of them ssh and telnet, a burst on the fourth day, and some that go out."""
    chance = random.Random(7)
    for hour in range(7 * 24):
        begin = SINCE + 3600 * hour
        busy = _HOURS[(hour + 10) % 24] * (5 if 80 <= hour < 84 else 1)
        for number in range(busy):
            yield _incoming(chance, begin + 3600 * number / busy)
    for number in range(40):
        yield _outgoing(chance, SINCE + number * 15000)


def _incoming(chance: random.Random, when: float) -> dict[str, Any]:
    (net,) = chance.choices([net for net, _ in _NETS], [share for _, share in _NETS])
    (port,) = chance.choices([port for port, _ in _PORTS], [share for _, share in _PORTS])
    source = f"{net}.{chance.choice((7, 9, 9, 9, 41, chance.randrange(1, 250)))}"
    if chance.random() < 0.08:
        source = f"2001:db8:{chance.randrange(1, 6):x}::{chance.randrange(1, 40):x}"
    fields = {"in": "eth0", "src": source, "dst": "192.0.2.80", "proto": "tcp", "dpt": port, "name": "denied"}
    fields |= {"rule": f"{RULES}/99-log.rules:4", "meaning": "denied"}
    if chance.random() < 0.3:
        return entry(when, events.DENIED_SUMMARY, "further packets", count=chance.randrange(2, 60), **fields)
    return entry(when, events.DENIED, "denied", **fields)


def _outgoing(chance: random.Random, when: float) -> dict[str, Any]:
    port, user = chance.choice(((25, 33), (25, 33), (6667, 33), (123, 0)))
    destination = f"203.0.113.{chance.randrange(1, 6)}"
    fields = {"out": "eth0", "dst": destination, "proto": "tcp", "dpt": port, "uid": user}
    return entry(when, events.DENIED, "denied", name="output", meaning="denied", rule="99-log.rules:6", **fields)


def _author(process: str, command: str, **fields: Any) -> dict[str, Any]:
    known = {"culprit": process, "culprit_process": process, "culprit_command": command, "culprit_user": "root"}
    return {**known, **fields}


def happenings() -> Iterator[dict[str, Any]]:
    """What was done to the rules, and what was lost."""
    yield entry(SINCE + 9000, events.STARTED, "fwguardd guards this host")
    shell = _author(
        "iptables",
        "iptables -I INPUT -p tcp --dport 8443 -j ACCEPT",
        culprit_parent="sudo",
        culprit_parent_user="alice",
    )
    added = ["+ ipv4 filter -A INPUT -p tcp -m tcp --dport 8443 -j ACCEPT"]
    lost = [f"- ipv4 filter -A INPUT -i lo -j ACCEPT ({RULES}/00-base.rules:{line})" for line in range(11, 16)]
    flush = _author(
        "netfilter-persistent", "/usr/sbin/netfilter-persistent flush", culprit_unit="netfilter-persistent.service"
    )
    for when, author, differences, repaired in (
        (SINCE + 1.3 * DAY, shell, added, 0.4),
        (SINCE + 3.6 * DAY, flush, lost, 0.6),
        (SINCE + 5.1 * DAY, flush, lost, 0.5),
    ):
        yield entry(
            when, events.DRIFT, "the kernel differs", changes=len(differences), difference=differences, state="drifted",
            **author,
        )  # fmt: skip
        yield entry(when + repaired, events.REPAIRED, "repaired", changes=len(differences), state="in-force")
    yield entry(
        SINCE + 2.2 * DAY, events.REJECTED, "refused", code="bad-port",
        finding=[f'{RULES}/60-app.rules:3: error: "htpps" is neither a port nor a service [bad-port]'],
        file=f"{RULES}/60-app.rules:3", state="in-force", files="refused",
    )  # fmt: skip
    yield entry(
        SINCE + 2.21 * DAY, events.TAKEN_BACK, "the refused change was reverted: the files are those of revision 40"
    )
    yield entry(
        SINCE + 4 * DAY, events.SCAN, "scan", src="203.0.113.9", count=340, ports=["tcp/1", "tcp/2"], spoofable="yes"
    )
    yield entry(
        SINCE + 4.5 * DAY, events.SWEEP, "sweep", src="198.51.100.41", count=12, hosts=["192.0.2.1", "192.0.2.2"]
    )
    yield entry(SINCE + 3.4 * DAY, events.DENIALS_LOST, "lost", source="kmsg", count=12)
    yield entry(SINCE + 3.4 * DAY, events.DENIALS_SUPPRESSED, "suppressed", count=4310, name="denied")
    yield entry(
        SINCE + 6 * DAY, events.APPLIED, "revision 43 is in force", revision=43, cause="reload", state="in-force"
    )


def journal() -> list[dict[str, Any]]:
    """All entries, in the order of their times."""
    return sorted([*denials(), *happenings()], key=lambda one: int(one["__REALTIME_TIMESTAMP"]))


def _revision(number: int, days: float, cause: str, by: str | None, rules: int) -> RevisionDocument:
    return {
        "revision": number, "when": SINCE + days * DAY, "cause": cause, "by": by, "kind": "rules",
        "rules": {"ipv4": rules // 2 - 8, "ipv6": rules - rules // 2 + 8}, "files": 10, "in_force": number == 43,
        "changes": [],
    }  # fmt: skip


_OPENED: Final = _revision(41, 4.7, "opened", "uid 0, pid 4711 (fwguardctl)", 16)
_OPENED["kind"] = "open"
_EDITED: Final = _revision(40, 1.9, "change", "alice (owner of the changed files)", 52)
_EDITED["changes"] = [{"file": f"{RULES}/60-app.rules", "change": "added", "owner": "alice"}]
_RELOADED: Final = _revision(43, 6, "reload", "uid 0, pid 812 (fwguardctl)", 54)
_RELOADED["changes"] = [
    {"file": f"{RULES}/60-app.rules", "change": "changed", "owner": "alice"},
    {"file": f"{RULES}/70-old.rules", "change": "removed", "owner": ""},
]
HISTORY: Final[HistoryDocument] = {
    "revisions": [
        _RELOADED,
        _revision(42, 4.71, "closed at the end of its time", None, 52),
        _OPENED,
        _EDITED,
        _revision(39, -9, "start", "root (owner of the changed files)", 50),
    ],
    "damaged": [],
}

STATUS: Final[StatusDocument] = {
    "version": "0.1.0", "backend": "nft", "iptables": "1.8.9", "rules_dir": RULES,
    "sentence": "in-force: revision 43, 54 rules, compared at 09:59:41",
    "state": "in-force", "state_facts": "revision 43, 54 rules, compared at 09:59:41", "compared": NOW - 19.0,
    "files": "applied", "files_why": "",
    "in_force": {
        "revision": 43, "since": SINCE + 6 * DAY, "cause": "reload", "rules": {"ipv4": 19, "ipv6": 35}, "kind": "rules",
        "by": "uid 0, pid 812 (fwguardctl)",
    },
    "drift": {"count": 0, "repair": True, "paused_seconds": None, "differences": []},
    "last_refusal": None, "pending": None, "held": None,
    "denials": {
        "source": "kmsg", "position": "4711", "lines": 123, "denied": 120, "logged": 3, "unparsed": 0, "told": 20,
        "summarised": 100, "waiting": 3, "lost": 0, "dropped_events": 0,
    },
    "set_problems": ["list blocklist is stale: it was fetched last at 2026-11-24 06:12:00 from https://lists.example/all"],
}  # fmt: skip


def rule_count(file: str, line: int, chain: str, text: str, packets: int, days: float) -> RuleCountDocument:
    """What a rule has counted that is in force for so many days."""
    return {
        "family": "ipv4", "table": "filter", "chain": chain, "rule": text, "file": f"{RULES}/{file}", "line": line,
        "packets": packets, "bytes": 60 * packets, "since": NOW - days * DAY, "last": NOW - 60.0 if packets else None,
    }  # fmt: skip


RULE_COUNTS: Final = [
    rule_count("10-ssh.rules", 2, "INPUT", "-p tcp -m tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT", 812, 90),
    rule_count("50-ftp.rules", 4, "INPUT", "-p tcp -m tcp --dport 21 -m conntrack --ctstate NEW -j ACCEPT", 0, 90),
    rule_count(
        "55-rsync-git.rules", 3, "OUTPUT", "-p tcp -m tcp --dport 9418 -m conntrack --ctstate NEW -j ACCEPT", 0, 90
    ),
    rule_count("60-app.rules", 7, "INPUT", "-s 192.0.2.0/24 -p tcp -m tcp --dport 8443 -j ACCEPT", 0, 1),
    rule_count("00-base.rules", 7, "FORWARD", "policy DROP", 0, 90),
]


def _socket(
    address: str, port: int, program: Program, accepted: dict[str, set[int]], origin: Origin | None
) -> ExposedSocket:
    """A socket, the line that decides, and who reaches it."""
    listening = ListeningSocket("tcp", ip_address(address), port, "", both_families=True, program=program)
    refused = {} if accepted else {ANYWHERE: {4, 6}}
    return ExposedSocket(listening, Reach(accepted, refused), None, origin)


_SSHD: Final = Program("sshd", 611, "root", "ssh.service")
_NGINX: Final = Program("nginx", 702, "root", "nginx.service")
_POSTGRES: Final = Program("postgres", 800, "postgres", "postgresql.service")
EXPOSURE: Final = Exposure(
    (
        _socket("::", 22, _SSHD, {ANYWHERE: {4, 6}}, Origin(f"{RULES}/10-ssh.rules", 2)),
        _socket("::", 443, _NGINX, {ANYWHERE: {4, 6}}, Origin(f"{RULES}/20-web.rules", 2)),
        _socket("::", 8443, Program("java", 911, "app"), {"192.0.2.0/24": {4}}, Origin(f"{RULES}/60-app.rules", 7)),
        _socket("0.0.0.0", 9100, Program("node_exporter", 655), {}, Origin(f"{RULES}/00-base.rules", 6)),
        _socket("127.0.0.1", 5432, _POSTGRES, {}, None),
    ),
    (
        OpenRule(
            Step("filter", "INPUT", 9, "accept"),
            Origin(f"{RULES}/50-ftp.rules", 4),
            {"21/tcp": None},
            Reach({ANYWHERE: {4, 6}}),
        ),
    ),
    (),
    ("table inet mine is not a table of iptables and is left out",),
)

SETS: Final = (
    SetFact("blocklist", 18_204, NOW - 4.16 * DAY, 3600.0),
    SetFact("office", 6, NOW - 40.0 * DAY, None),
    SetFact("partners", 41, NOW - 5400.0, 21600.0),
)


def example() -> Facts:
    """A week with all that a report can show."""
    account = Account()
    account.add(journal())
    return Facts(
        "gate.example", "0.1.0", SINCE, NOW, STATUS, HISTORY, list(RULE_COUNTS), SETS, account, EXPOSURE,
        SINCE + 0.25 * DAY, {"0": "root", "33": "www-data"},
    )  # fmt: skip


def quiet() -> Facts:
    """A week in which nothing happened, seen by a user who is not root."""
    no_root = MissingPart("only root may read the rules in force and send packets through them")
    history: HistoryDocument = {"revisions": HISTORY["revisions"][-1:], "damaged": []}
    status: StatusDocument = {**STATUS, "set_problems": []}
    return Facts("gate.example", "0.1.0", SINCE, NOW, status, history, [], (), Account(), no_root)


def unknown() -> Facts:
    """No daemon runs, and the journal may not be read."""
    daemon = MissingPart("fwguardd is not running, or its control socket is not /run/fwguard/control.sock")
    journal = MissingPart("the journal: not permitted; run it as root or in the group systemd-journal")
    no_root = MissingPart("only root may read the rules in force and send packets through them")
    return Facts("gate.example", "0.1.0", SINCE, NOW, daemon, daemon, daemon, daemon, journal, no_root)
