"""A journey as text for a terminal: table by table, each rule that was met with its file and line, and the verdict."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from fwguardd.ctl.answers import escaped
from fwguardd.packets.journeys import met_in, routing_in_words, starts_routing, verdict_in_words
from fwguardd.packets.model import Journey, Undecided, Verdict
from fwguardd.packets.packet_words import packet_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fwguardd.ctl.answers import AnswerPainter
    from fwguardd.packets.journeys import Met
    from fwguardd.packets.remedy import Remedy
    from fwguardd.packets.straight_answer import StraightAnswer
    from fwguardd.ruleset.model import Family, Ruleset

    Rulesets = Mapping[Family, Ruleset]
    Paint = Callable[[str], str]

WIDTH: Final = 80
_INDENT: Final = " " * 6


def journey_lines(journey: Journey | Undecided, rulesets: Rulesets, ink: AnswerPainter) -> Iterator[str]:
    """The packet, all steps, and the verdict last."""
    yield from wrapped(packet_in_words(journey.packet), "", ink.bold)
    if isinstance(journey, Journey):
        yield from _step_lines(journey, rulesets, ink)
    yield from verdict_lines(journey, rulesets, ink)


def _step_lines(journey: Journey, rulesets: Rulesets, ink: AnswerPainter) -> Iterator[str]:
    """The steps under a heading for each chain, and the routing decision where it is made."""
    routing = routing_in_words(journey.routed, journey.packet)
    heading = ""
    for met in met_in(journey, rulesets):
        if routing and starts_routing(met):
            yield f"routing: {routing}"
            routing = ""
        if heading != _heading(met):
            heading = _heading(met)
            yield ink.dim(heading)
        yield from _met_lines(met, ink)
    if routing:
        yield f"routing: {routing}"


def _heading(met: Met) -> str:
    if met.hook == met.step.chain:
        return f"{met.step.table} {met.step.chain}"
    return escaped(f"{met.step.table} {met.step.chain} (from {met.hook})")


def _met_lines(met: Met, ink: AnswerPainter) -> Iterator[str]:
    number = str(met.step.position or "-")
    first, *rest = list(wrapped(met.text, _INDENT)) or [_INDENT]
    yield f"{number:>4}  {first.strip()}"
    yield from rest
    yield from map(ink.dim, wrapped(_origin_words(met), _INDENT))
    yield from wrapped(met.change, _INDENT, ink.warn)


def _origin_words(met: Met) -> str:
    """The place of a rule; "" for a policy that no file states."""
    if met.origin is not None:
        return str(met.origin)
    if met.rule is None:
        return ""
    return "(in no rule file)"


def verdict_lines(journey: Journey | Undecided, rulesets: Rulesets, ink: AnswerPainter) -> Iterator[str]:
    """What became of the packet, in colour."""
    yield from wrapped(verdict_in_words(journey, rulesets), "", paint_of(journey, ink))


def paint_of(journey: Journey | Undecided, ink: AnswerPainter) -> Paint:
    """The colour of a verdict."""
    if isinstance(journey, Undecided):
        return ink.warn
    if journey.verdict is Verdict.ACCEPT:
        return ink.good
    return ink.bad


def remedy_lines(remedy: Remedy, rulesets: Rulesets, ink: AnswerPainter) -> Iterator[str]:
    """The rules that would have to be added, and whether the packet passed with them."""
    if not remedy.additions:
        return
    yield "To accept it, add:"
    for addition in remedy.additions:
        yield f"  {ink.bold(escaped(addition.line))}"
        yield f"  {escaped(addition.place)}"
    if remedy.proven:
        yield ink.good("With this the packet was accepted in a rehearsal.")
    else:
        yield from wrapped(f"Even then it is {verdict_in_words(remedy.journey, rulesets)}.", "", ink.warn)


def straight_lines(straight: StraightAnswer, ink: AnswerPainter) -> Iterator[str]:
    """Why the answer does not come back, and the rule that brings it back."""
    yield from wrapped(straight.sentence, "", ink.bad)
    yield "To bring it back, add:"
    yield f"  {ink.bold(escaped(straight.rule))}"


def wrapped(text: str, indent: str, paint: Paint = str) -> Iterator[str]:
    """Lines of a text that fit in `WIDTH`; a word that is longer stays whole, so that it can be copied."""
    for line in textwrap.wrap(
        escaped(text), WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
        break_on_hyphens=False,
    ):  # fmt: skip
        yield paint(line)
