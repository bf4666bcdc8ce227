"""The impact of a change as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd.ctl.explain_lines import wrapped
from fwguardd.packets.impact import MOST_SHOWN, Effect, impact_sentence, turned_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fwguardd.ctl.answers import AnswerPainter
    from fwguardd.packets.impact import Impact
    from fwguardd.ruleset.model import Family, Ruleset

_WORDS: Final = {
    Effect.CUT: "cut",
    Effect.NOT_AGAIN: "not again",
    Effect.CLOSED: "closed",
    Effect.OPENED: "opened",
    Effect.LET_IN: "let in",
}
_HARMFUL: Final = frozenset({Effect.CUT, Effect.NOT_AGAIN, Effect.CLOSED})


def impact_lines(impact: Impact, after: Mapping[Family, Ruleset], ink: AnswerPainter) -> Iterator[str]:
    """A line for each connection, socket and denial that turns, the sum of all, and what was left out."""
    for effect in Effect:
        yield from _effect_lines(effect, impact, after, ink)
    yield from wrapped(f"Impact: {impact_sentence(impact)}", "", _paint_of(impact, ink))
    if impact.undecided:
        yield f"not decided: {impact.undecided} of the packets"
    for sentence in impact.left_out:
        yield from wrapped(f"not tried: {sentence}", "")


def _effect_lines(effect: Effect, impact: Impact, after: Mapping[Family, Ruleset], ink: AnswerPainter) -> Iterator[str]:
    found = impact.of(effect)
    paint = ink.good
    if effect in _HARMFUL:
        paint = ink.bad
    for turned in found[:MOST_SHOWN]:
        first, *rest = wrapped(turned_in_words(turned, after), " " * 11)
        yield f"{paint(_WORDS[effect].ljust(9))}  {first.strip()}"
        yield from rest
    if len(found) > MOST_SHOWN:
        yield f"{'':9}  … and {len(found) - MOST_SHOWN} more"


def _paint_of(impact: Impact, ink: AnswerPainter) -> Callable[[str], str]:
    """Red where something that works would stop to work."""
    if _HARMFUL.isdisjoint(turned.effect for turned in impact.turned):
        return ink.bold
    return ink.bad
