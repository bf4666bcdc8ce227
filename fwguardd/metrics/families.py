"""The status of the daemon -> metric families. This module is pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.metrics.model import MetricFamily, counter, gauge, state_set

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fwguardd.control.documents import DenialsDocument, MetricsDocument, StatusDocument

STATES = ("in-force", "drifted", "emergency", "open", "unverified", "unmanaged")
FILES = ("applied", "refused", "held", "waiting", "settling")
SOURCES = ("kmsg", "journal", "nflog")


def of_daemon(status: StatusDocument, counted: Iterable[MetricFamily], resident_bytes: int) -> MetricsDocument:
    """All families: of the status, what was counted since the start, and the memory that the daemon uses."""
    families = [
        *_of_state(status),
        *_of_rules(status),
        *_of_drift(status),
        *_of_denials(status["denials"]),
        *counted,
        gauge("fwguard_resident_memory_bytes", "Memory that the daemon uses.", resident_bytes),
    ]
    return {"families": [family.document() for family in families]}


def _of_state(status: StatusDocument) -> list[MetricFamily]:
    info = gauge("fwguard_build_info", "The version of fwguardd, and the iptables that it uses.")
    info.add(1, version=status["version"], backend=status["backend"], iptables=status["iptables"])
    refused = status["last_refusal"]
    settings = status.get("settings")
    return [
        info,
        state_set("fwguard_state", "What the kernel held when it was compared last.", STATES, status.get("state")),
        state_set("fwguard_files", "What became of the rule files.", FILES, status.get("files")),
        gauge(
            "fwguard_compared_timestamp_seconds",
            "When the kernel was compared last, in seconds since 1970.",
            status.get("compared"),
        ),
        gauge(
            "fwguard_files_refused_timestamp_seconds",
            "When the files in the directory were refused, in seconds since 1970; missing if they were not.",
            refused["when"] if refused is not None else None,
        ),
        gauge(
            "fwguard_settings_refused",
            "1 if the last reload could not use the settings.",
            settings is not None and settings["state"] == "refused",
        ),
        gauge("fwguard_damaged_files", "Damaged files in the state directory.", len(status.get("damaged", ()))),
    ]


def _of_rules(status: StatusDocument) -> list[MetricFamily]:
    rules = gauge("fwguard_rules", "Rules of the revision that was loaded last.")
    others = gauge("fwguard_other_rules", "Rules of other programs in owned tables.")
    counts = status.get("others")
    if counts is not None:
        others.add(counts["kept"], standing="kept")
        others.add(counts["undecided"], standing="undecided")
    revision = gauge("fwguard_revision", "The revision that was loaded last.")
    since = gauge("fwguard_revision_timestamp_seconds", "Since when it is loaded, in seconds since 1970.")
    in_force = status["in_force"]
    if in_force is not None:
        rules.add(in_force["rules"]["ipv4"], family="ipv4")
        rules.add(in_force["rules"]["ipv6"], family="ipv6")
        revision.add(in_force["revision"])
        since.add(in_force["since"])
    pending = gauge("fwguard_pending", "1 if a revision waits to be confirmed.", status["pending"] is not None)
    return [revision, since, rules, others, pending]


def _of_drift(status: StatusDocument) -> list[MetricFamily]:
    drift = status["drift"]
    fights = drift.get("fight") is not None
    return [
        gauge("fwguard_drift_differences", "Differences that were found last and left alone.", drift["count"]),
        gauge("fwguard_repair_enabled", "1 if drift is repaired now.", drift["repair"]),
        gauge("fwguard_fight", "1 if repairs are suspended because another program undoes them.", fights),
    ]


def _of_denials(denials: DenialsDocument) -> list[MetricFamily]:
    lines = counter("fwguard_log_lines_total", "Log lines with a watched prefix that were read, by their meaning.")
    for meaning, count in (
        ("denied", denials["denied"]),
        ("logged", denials["logged"]),
        ("unparsed", denials["unparsed"]),
    ):
        lines.add(count, meaning=meaning)
    dropped = denials.get("dropped_events", 0)
    return [
        state_set("fwguard_denials_source", "Where denials are read from.", SOURCES, denials["source"]),
        lines,
        counter(
            "fwguard_lost_records_total", "Kernel records that were lost before they could be read.", denials["lost"]
        ),
        counter("fwguard_dropped_events_total", "Events that the log did not accept.", dropped),
    ]
