"""The sections about what the host has: what is exposed, rules that match nothing, sets with their age, and losses."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from fwguardd import events
from fwguardd.ctl.counters_verb import Line, lines_of, unused
from fwguardd.ctl.report.facts import NO_DAEMON, NO_JOURNAL, MissingPart
from fwguardd.ctl.report.outline import Column, ReportTable, Row, Section, Sentence, Tone
from fwguardd.ctl.report.spans import minute
from fwguardd.ruleset.list_sources import STALE_AFTER
from fwguardd.wording import counted, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fwguardd.ctl.report.account import Account
    from fwguardd.ctl.report.facts import Facts, Rules, SetFact
    from fwguardd.ctl.report.outline import Block
    from fwguardd.packets.exposure import ExposedSocket, OpenRule

MOST_RULES: Final = 60
MOST_SOCKETS: Final = 100


def exposure_section(facts: Facts) -> Section:
    """The listening sockets, and from where each is reached."""
    key, title = "exposure", "What is exposed"
    found = facts.exposure
    if isinstance(found, MissingPart):
        return Section(key, title, f"Not examined: {found.reason}")
    open_to_all = sum(one.open_to_all for one in found.sockets)
    lead = f"{counted(len(found.sockets), 'listening socket')}, {open_to_all} reachable from anywhere."
    blocks: list[Block] = []
    columns = (Column("Socket", code=True), Column("Program"), Column("Reachable from"))
    shown = sorted(found.sockets, key=_reach_rank)[:MOST_SOCKETS]
    if shown:
        left = len(found.sockets) - len(shown)
        note = f"{left:,} more: fwguardctl exposure" if left else ""
        blocks.append(ReportTable("Listening sockets", columns, tuple(map(_socket_row, shown)), note))
    blocks += map(_open_rule, found.open_rules)
    blocks += map(_note, found.notes)
    return Section(key, title, lead, tuple(blocks))


def _note(text: str) -> Sentence:
    return Sentence(text, Tone.QUIET)


def _reach_rank(one: ExposedSocket) -> tuple[bool, bool, str, int]:
    """Those that most hosts reach come first."""
    return not one.open_to_all, one.loopback_only or one.closed, one.listening.protocol, one.listening.port


def _socket_row(one: ExposedSocket) -> Row:
    reach, tone = str(one.reach), Tone.PLAIN
    if one.loopback_only:
        reach, tone = "this host (bound to loopback)", Tone.QUIET
    elif one.closed:
        tone = Tone.QUIET
    detail: tuple[str, ...] = ()
    if one.origin is not None and not one.loopback_only:
        detail = (str(one.origin),)
    return Row((str(one.listening), str(one.listening.program), reach), detail, tone)


def _open_rule(one: OpenRule) -> Sentence:
    place = f"rule {one.step.position} of {one.step.chain}"
    if one.origin is not None:
        place = str(one.origin)
    target = "where no program listens"
    if one.reach.forwarded:
        target = f"forwarded to {', '.join(sorted(one.reach.forwarded))}"
    ports = ", ".join(list(one.ports)[:8])
    if len(one.ports) > 8:
        ports += f" and {len(one.ports) - 8} more"
    return Sentence(f"{place} opens {ports} for {one.reach}, {target}.", Tone.WARN)


def rules_section(facts: Facts) -> Section:
    """The lines of the rule files that have never matched a packet."""
    key, title = "rules", "Rules never hit"
    if isinstance(facts.rules, MissingPart):
        return Section(key, title, NO_DAEMON)
    if not facts.rules:
        return Section(key, title, "No rules are in force.")
    lines = unused_rules(facts.rules, facts.now)
    if not lines:
        return Section(key, title, "Every rule has matched a packet.")
    lead = f"{counted(len(lines), 'line')} of the rule files matched no packet since they are in force."
    columns = (Column("In force for", number=True), Column("Place", code=True), Column("Rule", code=True))
    rows = map(partial(_rule_row, facts.now), lines[:MOST_RULES])
    note = ""
    if len(lines) > MOST_RULES:
        note = f"{len(lines) - MOST_RULES:,} more: fwguardctl counters --unused"
    return Section(key, title, lead, (ReportTable("Rules", columns, tuple(rows), note),))


def _rule_row(now: float, line: Line) -> Row:
    return Row((span(max(0.0, now - line.since)), line.place.rpartition("/")[2], line.text))


def unused_rules(rules: Rules, now: float) -> list[Line]:
    """The lines that never matched, those that are in force for the longest time first; policies are no rules."""
    found = filter(_is_rule, unused(lines_of(rules), now, None))
    return sorted(found, key=lambda line: line.since)


def _is_rule(line: Line) -> bool:
    return not line.text.partition(" ")[2].startswith("policy ")


def sets_section(facts: Facts) -> Section:
    """Sets and lists, with their age."""
    key, title = "sets", "Sets and lists"
    if isinstance(facts.sets, MissingPart):
        return Section(key, title, NO_DAEMON)
    if not facts.sets:
        return Section(key, title, "There are none.")
    columns = (Column("Set", code=True), Column("Entries", number=True), Column("Age"), Column("Fetched"))
    rows = tuple(map(partial(_set_row, facts.now), facts.sets))
    stale = sum(row.tone is Tone.WARN for row in rows)
    lead = f"{counted(len(rows), 'set')}, {stale} stale."
    return Section(key, title, lead, (ReportTable("Sets", columns, rows),))


def _set_row(now: float, one: SetFact) -> Row:
    age, tone = "not known", Tone.PLAIN
    if one.written is not None:
        age = f"{span(max(0.0, now - one.written))}, since {minute(one.written)}"
    fetched = "a file of the rules directory"
    if one.every is not None:
        fetched = f"every {span(one.every)}"
        if is_stale(one, now):
            tone = Tone.WARN
    return Row((one.name, f"{one.entries:,}", age, fetched), (), tone)


def is_stale(one: SetFact, now: float) -> bool:
    """Whether a list was not fetched for several intervals, after which the daemon reports it."""
    return one.every is not None and one.written is not None and now - one.written > STALE_AFTER * one.every


_LOSSES: Final = (
    (events.DENIALS_LOST, "records of the kernel were lost before they were read"),
    (events.DROPPED, "events were not taken by the log"),
    (events.DENIALS_UNPARSED, "lines had an unknown form; each is an event"),
    (events.DENIALS_UNAVAILABLE, "times denials could not be read for a while"),
    (events.DENIALS_SUPPRESSED, "lines were suppressed by the limits of rules that log, as they are meant to"),
)
_HARMLESS: Final = frozenset({events.DENIALS_SUPPRESSED.name})


def losses_section(facts: Facts) -> Section:
    """What is not in the counts of this report."""
    key, title = "losses", "Losses"
    account = facts.account
    if isinstance(account, MissingPart):
        return Section(key, title, NO_JOURNAL)
    rows = tuple(_loss_rows(account))
    if not rows:
        return Section(key, title, "No loss is known: every line that was read of the kernel log is counted.")
    columns = (Column("Number", number=True), Column("What"))
    return Section(key, title, "What is not in the counts above.", (ReportTable("Losses", columns, rows),))


def _loss_rows(account: Account) -> Iterator[Row]:
    for kind, words in _LOSSES:
        count = account.total(kind)
        tone = Tone.WARN
        if kind.name in _HARMLESS:
            tone = Tone.PLAIN
        if count:
            yield Row((f"{count:,}", words), (), tone)
