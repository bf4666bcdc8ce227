"""Summaries and notices as flat event fields, and as the sentences that a person reads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fwguardd.denials.flow import Flow
from fwguardd.denials.icmp import icmp_type_name
from fwguardd.denials.scan import Scan
from fwguardd.denials.telling import PROTO_WORDS, endpoint, in_brackets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.denials.model import Watched
    from fwguardd.denials.scan import Notice
    from fwguardd.denials.tally import Summary
    from fwguardd.denials.telling import FieldValue, Place

_ICMP = ("icmp", "ipv6-icmp")


def summary_fields(summary: Summary, watched: Watched) -> dict[str, FieldValue]:
    """The fields of a summary: those of the flow, as an event of a single line names them, and `count`, `first` and
    `last`, which are times in UTC. Lines of flows that were too many to count one by one have no flow."""
    return {
        "name": watched.name,
        "prefix": watched.prefix,
        "meaning": watched.meaning.value,
        **(_flow_fields(summary.key) if isinstance(summary.key, Flow) else {}),
        "count": summary.count,
        "first": _utc(summary.first),
        "last": _utc(summary.last),
    }


def summary_sentence(summary: Summary, watched: Watched, rule: Place | None = None) -> str:
    """`denied 4812 more: TCP 203.0.113.9 → 10.0.0.1:23 in eth0, within 58 s (99-log.rules:4)`."""
    head = f"{watched.meaning.value} {summary.count} more: {_flow_words(summary, watched)}"
    return " ".join((f"{head}, within {_span(summary.last - summary.first)}", *in_brackets(rule)))


def malformed_sentence(summary: Summary, watched: Watched) -> str:
    """What is told of lines that nobody could read, and that came too fast to be told one by one."""
    return f"{summary.count} more kernel lines have the prefix {watched.prefix!r} and an unknown form"


def loss_sentence(source: str, count: int) -> str:
    """What is told of things that a source had and nobody could read, and what to do about it."""
    thing = "packet" if source == "nflog" else "kernel record"
    things = f"1 {thing} was" if count == 1 else f"{count} {thing}s were"
    how = {
        "nflog": "dropped by the kernel, since fwguardd did not read fast enough",
        "journal": "missed by journald",
    }.get(source, "overwritten before fwguardd could read them")
    remedy = "" if source == "nflog" else ", or give the kernel log more room with the boot parameter log_buf_len=4M"
    return f"{things} {how}; denials may be among them; put a limit on the rules that log{remedy}"


def notice_fields(notice: Notice) -> dict[str, FieldValue]:
    """The fields of a scan or sweep. `spoofable` says that the source address is no proof of anything."""
    if isinstance(notice, Scan):
        return {"src": notice.src, "count": len(notice.ports), "ports": notice.ports, "spoofable": "yes"}
    return {"src": notice.src, "count": len(notice.hosts), "hosts": notice.hosts, "spoofable": "yes"}


def notice_sentence(notice: Notice) -> str:
    """`203.0.113.9 was denied 15 ports within 2 s, tcp/1 to tcp/15: a port scan, if the address is not forged`."""
    within = f"within {_span(notice.seconds)}"
    if isinstance(notice, Scan):
        named = f"{notice.ports[0]} to {notice.ports[-1]}"
        what = f"{len(notice.ports)} ports {within}, {named}: a port scan"
    else:
        named = f"{notice.hosts[0]} to {notice.hosts[-1]}"
        what = f"at {len(notice.hosts)} hosts {within}, {named}: a sweep"
    return f"{notice.src} was denied {what}, if the address is not forged"


def _flow_fields(flow: Flow) -> Mapping[str, FieldValue]:
    found: dict[str, FieldValue] = {
        "in": flow.incoming,
        "out": flow.outgoing,
        "src": flow.src,
        "dst": flow.dst,
        "proto": flow.proto,
    }
    if flow.port:
        found["icmp_type" if flow.proto in _ICMP else "dpt"] = int(flow.port)
    return {key: value for key, value in found.items() if value != ""}


def _flow_words(summary: Summary, watched: Watched) -> str:
    flow = summary.key
    if not isinstance(flow, Flow):
        return f"packets of many flows, too many to count one by one (prefix {watched.prefix!r})"
    words = [PROTO_WORDS.get(flow.proto, f"protocol {flow.proto}" if flow.proto else "packets")]
    port: str | None = flow.port or None
    if flow.proto in _ICMP and flow.port:
        words.append(icmp_type_name(flow.proto, int(flow.port)) or f"type {flow.port}")
        port = None
    if flow.src and flow.dst:
        words.append(f"{flow.src} → {endpoint(flow.dst, port)}")
    words += [f"in {flow.incoming}"] if flow.incoming else []
    words += [f"out {flow.outgoing}"] if flow.outgoing else []
    return " ".join(words)


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
