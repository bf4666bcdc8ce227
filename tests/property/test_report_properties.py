"""Reports of any texts in the journal and in the answers: none becomes markup, and none moves a cursor."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fwguardd import events
from fwguardd.ctl.report.account import NAMES, Account
from fwguardd.ctl.report.facts import MissingPart, SetFact
from fwguardd.escaping import printable
from tests.golden import report_facts
from tests.golden.reports import as_html, as_json, as_text
from tests.scale import examples

if TYPE_CHECKING:
    from fwguardd.ctl.report.facts import Facts

HOSTILE = st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</title></style><b>",
        "' onmouseover='x",
        "&lt;b&gt;",
        "]]><!--",
        "\x1b[2J\x07",
        "javascript:alert(1)",
        "\ud800\x00\u202e",
        "{{7*7}}",
    ]
)
TEXTS = HOSTILE | st.text(max_size=20)
VALUES = TEXTS | st.lists(TEXTS, max_size=3) | st.integers(0, 2**70).map(str) | st.none()
FIELDS = (
    "src", "dst", "in", "out", "proto", "dpt", "rule", "count", "uid", "culprit_process", "culprit_command",
    "culprit_unit", "difference", "finding", "others", "changes", "revision", "state", "name", "time", "meaning",
)  # fmt: skip
KINDS = {name: events.ALL_EVENTS[name] for name in NAMES}
TIMES = st.sampled_from([report_facts.SINCE, report_facts.NOW - 1, 0, 10**12, 10**18])


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    """An entry of the journal with any values."""
    kind = KINDS[draw(st.sampled_from(sorted(KINDS)))]
    found = report_facts.entry(draw(TIMES), kind, draw(TEXTS))
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=8)):
        found[f"FWGUARD_{name.upper()}"] = draw(VALUES)
    return found


@st.composite
def any_facts(draw: st.DrawFn) -> Facts:
    """A week with other texts in all places."""
    facts = report_facts.quiet()
    account = Account()
    account.add(draw(st.lists(entries(), max_size=12)))
    revision: Any = {**report_facts.HISTORY["revisions"][0], "cause": draw(TEXTS), "by": draw(TEXTS)}
    revision["changes"] = [{"file": draw(TEXTS), "change": draw(TEXTS), "owner": draw(TEXTS)}]
    history: Any = {"revisions": [revision], "damaged": []}
    rule: Any = {**report_facts.RULE_COUNTS[1], "rule": draw(TEXTS), "file": draw(TEXTS)}
    status: Any = {**report_facts.STATUS, "sentence": draw(TEXTS), "state": draw(TEXTS), "set_problems": [draw(TEXTS)]}
    return replace(
        facts,
        host=draw(TEXTS),
        status=draw(st.sampled_from([status, MissingPart(draw(TEXTS))])),
        history=draw(st.sampled_from([history, MissingPart(draw(TEXTS))])),
        rules=[rule],
        sets=(SetFact(draw(TEXTS), 3, draw(st.sampled_from([None, 0.0, 1e18])), draw(st.none() | st.just(60.0))),),
        account=account,
        exposure=MissingPart(draw(TEXTS)),
        users={"33": draw(TEXTS)},
    )


class _Names(HTMLParser):
    """The names of all elements and attributes of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.values: set[str | None] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names |= {tag, *(f"{tag} {name}" for name, _ in attrs)}
        self.values |= {value for name, value in attrs if name == "href"}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.names.add(f"comment {data}")


def _names(page: str) -> _Names:
    names = _Names()
    names.feed(page)
    names.close()
    return names


_WANTED = _names(as_html(report_facts.example())).names


@settings(max_examples=examples(20))
@given(any_facts())
def test_no_text_becomes_markup(facts: Facts) -> None:
    """A page has the elements and attributes that a page about harmless texts has, and no others; links lead into the
    page; the name of the host is there as text. The page can be written as UTF-8."""
    page = as_html(facts)
    page.encode()
    names = _names(page)
    assert names.names <= _WANTED
    assert all(value is not None and value.startswith("#") for value in names.values)
    assert printable(facts.host) in names.texts or not facts.host


@settings(max_examples=examples(20))
@given(any_facts())
def test_no_text_moves_the_cursor(facts: Facts) -> None:
    """Every line of the text is printable, and can be written; so can the JSON. A line is wider than 80 columns only if
    a word in it is wider than a column can be."""
    text = as_text(facts)
    text.encode()
    as_json(facts).encode()
    for line in text.split("\n"):
        assert line.isprintable()
        assert len(line) <= 80 or max(map(len, line.split(" "))) > 20
