"""The sections about denied packets: over time, those that came in, and those that this host was about to send."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from fwguardd import events
from fwguardd.ctl.denials.groups import NOTHING
from fwguardd.ctl.denials.histogram import local_begin
from fwguardd.ctl.report.changes import revisions_since
from fwguardd.ctl.report.episodes import episodes_of
from fwguardd.ctl.report.facts import NO_JOURNAL, MissingPart
from fwguardd.ctl.report.outline import MarkKind, RankedPlace, Ranking, Section, Timeline, TimelineMark
from fwguardd.ctl.report.timeline import DAY, interval_in_words, series, step_for, unit_of
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.control.documents import RevisionDocument
    from fwguardd.ctl.report.account import Account, DeniedByDirection
    from fwguardd.ctl.report.facts import Facts

SHOWN: Final = 10
MOST_MARKS: Final = 100
_MOST_INTERVALS: Final = 200


def time_section(facts: Facts) -> Section:
    """Denials over time."""
    key, title = "time", "Denials over time"
    if isinstance(facts.account, MissingPart):
        return Section(key, title, NO_JOURNAL)
    timeline = timeline_of(facts, facts.account)
    if not timeline.total:
        return Section(key, title, "No packet was denied, or none was logged.")
    return Section(key, title, _time_lead(facts.account, timeline), (timeline,))


def _time_lead(account: Account, timeline: Timeline) -> str:
    """How many, and the interval with most."""
    shown = series(timeline, step_for(timeline, _MOST_INTERVALS))
    busiest = max(shown.intervals, key=lambda interval: interval.count)
    lead = f"{account.denied:,} packets; most, {busiest.count:,}, in the {unit_of(shown.step)} of "
    words = interval_in_words(busiest.begin, shown.step).removeprefix("week of ")
    return f"{lead}{words}"


def timeline_of(facts: Facts, account: Account) -> Timeline:
    """The hours of the period, and what was done to the rules in it."""
    since, until = _local(facts.since), _local(facts.now)
    return Timeline(since, until, account.hours.counts(), tuple(_marks(facts, account)))


def _local(seconds: float) -> int:
    """A time as histograms count it."""
    return local_begin(round(seconds * 1_000_000), 1) or DAY


def _marks(facts: Facts, account: Account) -> Iterator[TimelineMark]:
    for revision in revisions_since(facts.history, facts.since)[:MOST_MARKS]:
        yield _mark_of(revision)
    for episode in episodes_of(account.drift)[-MOST_MARKS:]:
        if episode.name == events.DRIFT.name:
            yield TimelineMark(_local(episode.when), MarkKind.DRIFT, f"drift, by {episode.author}")


def _mark_of(revision: RevisionDocument) -> TimelineMark:
    kind = MarkKind.REVISION
    if revision["kind"] == "open":
        kind = MarkKind.OPEN
    return TimelineMark(_local(revision["when"]), kind, f"revision {revision['revision']}: {revision['cause']}")


def knocks_section(facts: Facts) -> Section:
    """Who was denied: sources, networks, ports, rules, and scans."""
    key, title = "sources", "Who knocked"
    account = facts.account
    if isinstance(account, MissingPart):
        return Section(key, title, NO_JOURNAL)
    incoming = account.incoming
    if not incoming.packets:
        return Section(key, title, "No packet that came in was denied, or none was logged.")
    blocks = (
        _ranking(incoming, "src", "Sources", "ports"),
        _ranking(incoming, "dport", "Ports", "sources"),
        _ranking(incoming, "net", "Networks (/24, /64)", "sources"),
        _ranking(incoming, "rule", "Rules", "sources"),
        *_scans(account),
    )
    lead = f"{incoming.packets:,} denied packets that came in. Source addresses can be forged."
    return Section(key, title, lead, blocks)


def outgoing_section(facts: Facts) -> Section:
    """What programs of this host were denied to send."""
    key, title = "outgoing", "Denied on the way out"
    if isinstance(facts.account, MissingPart):
        return Section(key, title, NO_JOURNAL)
    outgoing = facts.account.outgoing
    if not outgoing.packets:
        return Section(key, title, "No packet of this host was denied, or none was logged.")
    blocks = (
        _ranking(outgoing, "dst", "Destinations", "ports"),
        _ranking(outgoing, "dport", "Ports", "destinations"),
        _with_users(_ranking(outgoing, "uid", "Users", "destinations"), facts.users),
    )
    lead = f"{counted(outgoing.packets, 'packet')} that programs of this host were about to send."
    return Section(key, title, lead, blocks)


def _ranking(direction: DeniedByDirection, by: str, title: str, unique: str) -> Ranking:
    found = direction.highest(by, SHOWN)
    places = [RankedPlace(_name(str(group[by])), group["count"], _unique(group)) for group in found["groups"]]
    note = ""
    if found["count_error"]:
        note = f"every number may be too small by up to {found['count_error']:,}"
    return Ranking(title, tuple(places), direction.packets, unique, note)


def _name(text: str) -> str:
    if text == NOTHING:
        return "not known"
    return text


def _unique(group: dict[str, Any]) -> str:
    if group["unique_is_exact"]:
        return f"{group['unique']:,}"
    return f"~{group['unique']:,}"


def _with_users(ranking: Ranking, users: Mapping[str, str]) -> Ranking:
    """The ranking of user ids, with the names of the users."""
    places = [replace(place, name=users.get(place.name, place.name)) for place in ranking.places]
    return replace(ranking, places=tuple(places))


_TARGETS: Final = {events.SCAN.name: "ports", events.SWEEP.name: "hosts"}


def _scans(account: Account) -> Iterator[Ranking]:
    places: list[RankedPlace] = []
    total = sum(count for _, count in account.scans.highest(None))
    for (source, name), targets in account.scans.highest(SHOWN):
        places.append(RankedPlace(source, targets, _TARGETS.get(name, name)))
    if places:
        yield Ranking("Scans and sweeps", tuple(places), total, "of", unit="targets")
