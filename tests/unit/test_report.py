"""The parts of `fwguardctl report`: what the journal and the answers of the daemon say, plots, and the page."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from fwguardd import events
from fwguardd.ctl.denials.event import any_from_entry
from fwguardd.ctl.denials.groups import Groups
from fwguardd.ctl.report import account as accounts
from fwguardd.ctl.report.account import Account
from fwguardd.ctl.report.answers import facts_of, headline_of, notices_of
from fwguardd.ctl.report.authors import author
from fwguardd.ctl.report.changes import changes_of, open_periods
from fwguardd.ctl.report.command import since_of
from fwguardd.ctl.report.contents import outline_of
from fwguardd.ctl.report.episodes import episodes_of
from fwguardd.ctl.report.facts import MissingPart
from fwguardd.ctl.report.html_form import html_of
from fwguardd.ctl.report.knocks import timeline_of
from fwguardd.ctl.report.outline import MarkKind, Timeline, TimelineMark, Tone
from fwguardd.ctl.report.page_file import PageNotWrittenError, write_page
from fwguardd.ctl.report.page_style import STYLE
from fwguardd.ctl.report.plots import NARROW, WIDE, axis_top, short, time_plot
from fwguardd.ctl.report.text_form import ASCII, BLOCKS
from fwguardd.ctl.report.timeline import DAY, HOUR, WEEK, moment, series, step_for
from fwguardd.wording import words_for_caller
from tests.golden import report_facts
from tests.golden.report_facts import NOW, SINCE, entry
from tests.golden.reports import as_html, as_text, utc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MONDAY = 738_000 * DAY - 738_000 % 7 * DAY + DAY
"""A Monday, 0:00, in seconds as a timeline has them."""


@pytest.fixture(autouse=True)
def local_time_is_utc() -> Iterator[None]:
    """Local time is UTC here."""
    with utc():
        yield


def _account(*entries: dict[str, Any]) -> Account:
    account = Account()
    account.add(entries)
    return account


def test_packets_are_counted_once_and_by_direction() -> None:
    """A summary counts as the packets that it stands for. What comes in and what goes out are counted apart, and what
    was logged under another meaning is no denial."""
    account = _account(
        entry(SINCE, events.DENIED, "", **{"in": "eth0"}, src="192.0.2.1", proto="tcp", dpt=22),
        entry(SINCE, events.DENIED_SUMMARY, "", **{"in": "eth0"}, src="192.0.2.1", proto="tcp", dpt=22, count=9),
        entry(SINCE, events.DENIED, "", out="eth0", dst="192.0.2.9", proto="tcp", dpt=25, uid=33),
        entry(SINCE, events.LOGGED, "", **{"in": "eth0"}, src="192.0.2.7", proto="tcp", dpt=80),
    )
    assert (account.denied, account.incoming.packets, account.outgoing.packets) == (11, 10, 1)
    assert account.sources.number == 1
    (group,) = account.incoming.highest("dport", 5)["groups"]
    assert group == {"dport": "tcp 22", "count": 10, "unique": 1, "unique_is_exact": True}
    assert account.total(events.LOGGED) == 1


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sources and events there are, a fixed number of groups and of events is kept; the counts of all of
    them are exact, and a ranking says by how much its numbers may be too small."""
    monkeypatch.setattr(accounts, "MOST_GROUPS", 50)
    account = Account()
    account.add(
        entry(SINCE, events.DENIED, "", **{"in": "eth0"}, src=f"10.0.{n // 256}.{n % 256}", proto="tcp", dpt=n % 7)
        for n in range(2000)
    )
    account.add(entry(SINCE + n, events.REJECTED, "refused") for n in range(accounts.MOST_KEPT + 5))
    found = account.incoming.highest("src", 1000)
    assert len(found["groups"]) <= 50
    assert found["count_error"] > 0
    assert (account.denied, len(account.changes)) == (2000, accounts.MOST_KEPT)
    assert account.total(events.REJECTED) == accounts.MOST_KEPT + 5


def test_different_values_are_counted_in_bounded_memory() -> None:
    """Above its limit a number of different values is an estimate, and says so."""
    groups = Groups(("dport",), "src", exact=3)
    account = _account(*(entry(SINCE, events.DENIED, "", src=f"192.0.2.{n}", proto="tcp", dpt=1) for n in range(9)))
    assert account.denied == 9
    for n in range(9):
        event = entry(SINCE, events.DENIED, "", src=f"192.0.2.{n}", proto="tcp", dpt=1)
        groups.add([any_from_entry(event)])
    (group,) = groups.document(1)["groups"]
    assert (group["unique_is_exact"], 8 <= group["unique"] <= 10) == (False, True)


def test_a_repair_ends_the_drift_before_it() -> None:
    """All drift since the repair before is repaired by a repair; a fight, and drift after it, are not."""
    account = _account(
        entry(SINCE, events.DRIFT, "a", changes=1, culprit_process="sh", difference=["+ a"]),
        entry(SINCE + 1, events.DRIFT, "b", changes=2, culprit_process="sh", difference=["+ a", "+ b"]),
        entry(SINCE + 2, events.REPAIRED, "r", changes=2),
        entry(SINCE + 3, events.FIGHT, "f", chain="INPUT"),
        entry(SINCE + 4, events.DRIFT, "c", changes=1, difference=["- c"]),
    )
    found = [(one.name, one.author, one.repaired) for one in episodes_of(account.drift)]
    assert found == [
        ("drift.detected", "sh", SINCE + 2),
        ("drift.detected", "sh", SINCE + 2),
        ("drift.fight", "unknown", None),
        ("drift.detected", "unknown", None),
    ]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, ""),
        ({"culprit_unit": "docker.service", "culprit_process": "dockerd"}, "docker.service"),
        ({"culprit_unit": "session-3.scope", "culprit_process": "sh", "culprit_user": "root"}, "sh by root"),
        (
            {
                "culprit_process": "iptables",
                "culprit_user": "root",
                "culprit_parent": "sudo",
                "culprit_parent_user": "a",
            },
            "iptables by root, from sudo of a",
        ),
    ],
)
def test_an_author_is_named_in_few_words(fields: dict[str, Any], words: str) -> None:
    """A service by its unit; any other process by its name, user and parent, with the user of a parent that differs."""
    assert author(fields) == words


@pytest.mark.parametrize(
    ("by", "words"),
    [
        (None, ""),
        ("uid 0, pid 812 (fwguardctl)", "root, with fwguardctl"),
        ("uid 1000, pid 3", "uid 1000"),
        ("alice (owner of the changed files)", "alice, who owns the files"),
        ("SIGHUP", "SIGHUP"),
    ],
)
def test_a_user_is_named_in_few_words(by: str | None, words: str) -> None:
    """The number of a process that has ended says nothing."""
    assert words_for_caller(by) == words


def test_a_revision_and_its_event_are_one_change() -> None:
    """The event of a revision that the history has is left out; that of one that is not kept any more is shown. The
    newest come first, and revisions before the period are left out."""
    account = _account(
        entry(SINCE + 5, events.APPLIED, "revision 7 is in force", revision=7),
        entry(SINCE + 6 * DAY, events.APPLIED, "revision 43 is in force", revision=43),
    )
    found = changes_of(report_facts.HISTORY, account.changes, SINCE)
    assert [change.what for change in found] == [
        "revision 43: reload",
        "revision 42: closed at the end of its time",
        "revision 41: opened, everything is accepted",
        "revision 40: changed files",
        "rules applied",
    ]
    assert [change.what for change in changes_of(MissingPart("no daemon"), account.changes, SINCE)] == [
        "rules applied"
    ] * 2


def test_a_time_in_which_the_firewall_was_open_has_an_end() -> None:
    """It ends with the next revision, or lasts; one that ended before the period is left out."""
    (period,) = open_periods(report_facts.HISTORY, SINCE)
    assert (round((period.ended or 0) - period.begun), period.by) == (864, "root, with fwguardctl")
    assert open_periods({"revisions": report_facts.HISTORY["revisions"][2:], "damaged": []}, SINCE)[0].ended is None
    assert open_periods(report_facts.HISTORY, NOW) == []


def test_what_is_not_known_is_not_taken_for_none() -> None:
    """Without the daemon and the journal every fact is a question mark, and the reasons need attention."""
    facts = report_facts.unknown()
    assert {fact.value for fact in facts_of(facts)} == {"?"}
    assert [notice.text[:22] for notice in notices_of(facts)] == ["The state is not known", "Events and denials are"]
    assert outline_of(facts).tone is Tone.WARN


def test_a_state_of_before_is_dated() -> None:
    """Where the daemon does not answer, the last event that names a state is quoted with its time."""
    facts = report_facts.unknown()
    known = report_facts.example()
    assert headline_of(replace(facts, account=known.account)) == (
        "What the kernel holds is not known. The last event that says it is of 2026-11-27 10:00: in-force."
    )


@pytest.mark.parametrize("hours", [1, 24, 7 * 24, 90 * 24, 3 * 365 * 24])
@pytest.mark.parametrize("most", [WIDE.most_bars, NARROW.most_bars])
def test_a_series_has_all_intervals_and_all_packets(hours: int, most: int) -> None:
    """No interval is left out, no packet is lost, and there are no more intervals than have room; what is outside of
    the period counts at its edge."""
    since, until = MONDAY + 5000, MONDAY + 5000 + hours * HOUR
    counts = {MONDAY - DAY: 3, MONDAY + HOUR: 4, until - 1: 5, until + WEEK: 6}
    timeline = Timeline(since, until, counts)
    shown = series(timeline, step_for(timeline, most))
    assert sum(interval.count for interval in shown.intervals) == timeline.total == 18
    assert len(shown.intervals) <= most + 1
    begins = [interval.begin for interval in shown.intervals]
    assert begins == list(range(begins[0], begins[-1] + 1, shown.step))
    assert begins[0] <= since < until <= begins[-1] + shown.step


def test_weeks_begin_on_mondays() -> None:
    """A week on the line of time is a week of the calendar."""
    shown = series(Timeline(MONDAY + 3 * DAY, MONDAY + 30 * DAY, {MONDAY + 6 * DAY: 1, MONDAY + 7 * DAY: 1}), WEEK)
    assert {moment(interval.begin).strftime("%a") for interval in shown.intervals} == {"Mon"}
    assert [interval.count for interval in shown.intervals][:2] == [1, 1]


@pytest.mark.parametrize("highest", [0, 1, 2, 3, 5, 9, 10, 11, 863, 99_999, 10**12 + 1])
def test_the_axis_ends_at_a_round_number_above_the_bars(highest: int) -> None:
    """It is at least the highest count, and less than two and a half times as much."""
    assert highest <= axis_top(highest) <= max(1, 2.5 * highest)
    assert len(short(axis_top(highest))) <= 5


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("counts", [{}, {MONDAY: 1}, {MONDAY + n * HOUR: n * n for n in range(168)}])
def test_a_plot_is_a_drawing_within_its_frame(size: Any, counts: dict[int, int]) -> None:
    """Well-formed SVG with a title and a description; every bar is within the frame, and has a title of its own."""
    marks = (TimelineMark(MONDAY - DAY, MarkKind.OPEN, "<&>"), TimelineMark(MONDAY + 9 * DAY, MarkKind.DRIFT, "sh"))
    root = ET.fromstring(time_plot(Timeline(MONDAY, MONDAY + 7 * DAY, counts, marks), size).text)
    labelled = root.attrib["aria-labelledby"].split()
    assert [root.find(f"*[@id='{name}']") is not None for name in labelled] == [True, True]
    bars = root.findall("g/rect")
    assert len(bars) == len(root.findall("g/title")) - len(marks)
    for bar in bars:
        x, y, width, height = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= x < x + width <= size.width
        assert 0 <= y < y + height <= size.height
        assert height >= 0.9
    if counts:
        assert bars


def test_a_bar_is_seen_unless_the_count_is_zero() -> None:
    """One packet among millions still has a bar, and none has none."""
    for ramp in (BLOCKS, ASCII):
        assert ramp.of(0, 10**9) == ramp.characters[0]
        assert ramp.of(1, 10**9) == ramp.characters[1]
        assert ramp.of(7, 7) == ramp.characters[-1]
        assert (len(ramp.bar(1, 10**9, 16)), ramp.bar(0, 5, 16), ramp.bar(0, 0, 16)) == (1, "", "")


def _luminance(colour: str) -> float:
    """The relative luminance of a colour (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_colours_have_contrast() -> None:
    """Text has a contrast of 4.5 to each background that it stands on, and bars have 3 (WCAG 2.2, 1.4.3 and 1.4.11), in
    light, in dark and on paper."""
    themes = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", part)) for part in STYLE.split(":root {")[1:]]
    assert len(themes) == 3
    for colours in themes:
        for back in ("page", "card"):
            for name in ("text", "quiet", "good", "warn", "bad"):
                assert _contrast(colours[name], colours[back]) >= 4.5, (name, back, colours)
            assert _contrast(colours["bar"], colours[back]) >= 3
        for name in ("good", "warn", "bad"):
            assert _contrast(colours[name], colours[f"{name}-back"]) >= 4.5, (name, colours)


class _Elements(HTMLParser):
    """The elements of a page, each with its attributes, and whether they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def close(self) -> None:
        super().close()
        assert self._open == []


def test_the_page_is_one_file_and_can_be_read_aloud() -> None:
    """Elements are closed in order; nothing is fetched and nothing runs; links lead to sections of the page; tables
    have captions and headings, and no two elements have one id."""
    page = html_of(outline_of(report_facts.example()))
    elements = _Elements()
    elements.feed(page)
    elements.close()
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "base", "form"}
    names = {name for _, attributes in elements.found for name in attributes}
    assert not names & {"src", "srcset", "style", "action", "xlink:href"}
    assert not any(name.startswith("on") for name in names)
    assert "url(" not in page
    assert "@import" not in page
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"] for tag, attributes in elements.found if tag == "a"} <= {f"#{name}" for name in ids}
    count = [tag for tag, _ in elements.found].count
    assert count("caption") == count("table")
    assert all("scope" in attributes for tag, attributes in elements.found if tag == "th")


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("7d", NOW - 7 * DAY),
        ("12h", NOW - 12 * HOUR),
        ("4w", NOW - 4 * WEEK),
        ("1h ago", NOW - HOUR),
        ("-15m", NOW - 900),
        ("yesterday", NOW - 34 * HOUR),
        ("2026-11-22 23:30", 1795390200),
    ],
)
def test_since_is_a_duration_or_a_time(text: str, since: int) -> None:
    """A duration counts back from now; other times are those of --read."""
    assert since_of(text, NOW) == since


@pytest.mark.parametrize("text", ["tomorrow", "soon", "", "d", "99999999w", "-"])
def test_since_is_in_the_past(text: str) -> None:
    """What is no time, or not in the past, is wrong usage."""
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        since_of(text, NOW)


def test_a_page_replaces_a_file_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file has the page, and others may not read it; a link is replaced and not followed; where the directory does
    not exist, the error says that nothing is written."""
    target, path = tmp_path / "target", tmp_path / "report.html"
    target.write_text("as it was")
    path.symlink_to(target)
    write_page(str(path), "<p>…</p>")
    assert (path.read_text(), path.is_symlink(), path.stat().st_mode & 0o777) == ("<p>…</p>", False, 0o640)
    assert target.read_text() == "as it was"
    assert "10 bytes" in capsys.readouterr().out
    with pytest.raises(PageNotWrittenError, match="the report is not written"):
        write_page(str(tmp_path / "missing" / "report.html"), "")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["report.html", "target"]


def test_a_closed_standard_output_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has None in place of a standard output that was closed when it started."""
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(PageNotWrittenError, match="standard output is closed"):
        write_page("-", "")


def test_a_report_since_1970_is_no_longer_than_others() -> None:
    """However long the period is, the plot and its tables have a bounded number of intervals; no packet is left out."""
    facts = replace(report_facts.example(), since=0.0)
    page, text = as_html(facts), as_text(facts)
    assert len(page) < 200_000
    assert len(text.splitlines()) < 400
    assert f"{sum(timeline_of(facts, facts.account).counts.values()):,} packets" in page  # type: ignore[arg-type]
    assert max(map(len, text.splitlines())) <= 80


def test_a_long_table_is_cut_on_a_terminal() -> None:
    """A screen has no room for a hundred rules; the page has them."""
    rule = report_facts.rule_count
    rules = [rule("a.rules", line, "INPUT", f"-p tcp --dport {line} -j DROP", 0, 9) for line in range(30)]
    facts = replace(report_facts.quiet(), rules=rules)
    assert "  … and 10 more: --html FILE shows them\n" in as_text(facts)
    assert as_html(facts).count("--dport ") == 30
