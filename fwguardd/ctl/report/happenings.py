"""The sections about what was done to the rules: changes, and drift with its repairs.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd import events
from fwguardd.ctl.report.changes import ReportedChange, changes_of
from fwguardd.ctl.report.episodes import Episode, by_author, episodes_of
from fwguardd.ctl.report.facts import NO_JOURNAL, MissingPart
from fwguardd.ctl.report.outline import Column, RankedPlace, Ranking, ReportTable, Row, Section, Sentence, Tone
from fwguardd.ctl.report.spans import minute
from fwguardd.wording import counted, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.ctl.report.account import Happening
    from fwguardd.ctl.report.facts import Facts
    from fwguardd.ctl.report.outline import Block

MOST_SHOWN: Final = 40
"""Rows of a table of changes or of drift; --json has all that are kept."""

MOST_DIFFERENCES: Final = 3
MOST_AUTHORS: Final = 8
_CHANGE_COLUMNS: Final = (Column("When"), Column("By"), Column("What"))


def changes_section(facts: Facts) -> Section:
    """What changed, and by whom."""
    happenings: list[Happening] = []
    if not isinstance(facts.account, MissingPart):
        happenings += facts.account.changes
    unknown, changes = _unknown(facts), changes_of(facts.history, happenings, facts.since)
    blocks: list[Block] = []
    if changes:
        blocks.append(ReportTable("Changes", _CHANGE_COLUMNS, _change_rows(changes), _left_out(len(changes))))
    lead = counted(len(changes), "change")
    if not changes:
        lead = "Nothing was changed."
    if unknown and not changes:
        lead = "Not known."
    return Section("changes", "What changed, and by whom", lead, (*blocks, *unknown))


def _unknown(facts: Facts) -> list[Sentence]:
    sentences: list[Sentence] = []
    if isinstance(facts.history, MissingPart):
        sentences.append(Sentence("The revisions are not known, because the daemon did not answer.", Tone.WARN))
    if isinstance(facts.account, MissingPart):
        text = "Refusals and other events are not known, because the journal could not be read."
        sentences.append(Sentence(text, Tone.WARN))
    return sentences


def _left_out(count: int) -> str:
    if count <= MOST_SHOWN:
        return ""
    return f"{count - MOST_SHOWN:,} older ones are left out; fwguardctl watch --since shows all"


def _change_rows(changes: Sequence[ReportedChange]) -> tuple[Row, ...]:
    return tuple(map(_change_row, changes[:MOST_SHOWN]))


def _change_row(change: ReportedChange) -> Row:
    return Row((minute(change.when), change.by, change.what), change.detail, change.tone)


def drift_section(facts: Facts) -> Section:
    """What other programs changed, and what was repaired."""
    title = "Drift and repairs"
    if isinstance(facts.account, MissingPart):
        return Section("drift", title, NO_JOURNAL)
    episodes = episodes_of(facts.account.drift)
    if not episodes:
        return Section("drift", title, "No other program changed the rules.")
    columns = (Column("When"), Column("Repaired"), Column("By"), Column("Differences", number=True))
    rows = tuple(map(_episode_row, episodes[: -MOST_SHOWN - 1 : -1]))
    table = ReportTable("Drift", columns, rows, _left_out(len(episodes)))
    return Section("drift", title, _drift_lead(facts, episodes), (_authors(episodes), table))


def _drift_lead(facts: Facts, episodes: Sequence[Episode]) -> str:
    assert not isinstance(facts.account, MissingPart)
    repairs, fights = facts.account.total(events.REPAIRED), facts.account.total(events.FIGHT)
    lead = f"{counted(len(episodes), 'time')}, {counted(repairs, 'repair')}"
    if fights:
        lead += f", {counted(fights, 'fight')}"
    return lead


def _authors(episodes: Sequence[Episode]) -> Ranking:
    places: list[RankedPlace] = []
    for name, count in by_author(episodes)[:MOST_AUTHORS]:
        places.append(RankedPlace(name, count))
    return Ranking("Authors", tuple(places), len(episodes), unit="times")


def _episode_row(episode: Episode) -> Row:
    tone, repaired = Tone.PLAIN, "no"
    if episode.repaired is not None:
        repaired = f"in {_seconds(episode.repaired - episode.when)}"
    elif episode.name in (events.DRIFT.name, events.FIGHT.name, events.HIDDEN.name):
        tone = Tone.BAD
    if episode.kind:
        repaired = episode.kind
    changes = str(episode.changes or "")
    return Row((minute(episode.when), repaired, episode.author, changes), _episode_detail(episode), tone)


def _seconds(seconds: float) -> str:
    """A duration; a short one to a tenth of a second."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    return span(seconds)


def _episode_detail(episode: Episode) -> tuple[str, ...]:
    lines = list(episode.differences[:MOST_DIFFERENCES])
    left = max(episode.changes, len(episode.differences)) - len(lines)
    if lines and left > 0:
        lines.append(f"… and {left:,} more")
    if episode.command:
        lines.insert(0, f"$ {episode.command}")
    return tuple(lines) or (episode.message,)
