"""The impact of a change of the rule files, for the verbs that show or make one: diff, edit and reload --confirm."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.answers import AnswerPainter
from fwguardd.ctl.beds import HostBeds, beds_with
from fwguardd.ctl.denial_lookup import recent_denials
from fwguardd.ctl.explain_lines import wrapped
from fwguardd.ctl.impact_lines import impact_lines
from fwguardd.ctl.line_input import UnreadableError
from fwguardd.ctl.offline_verbs import OfflineInput, validated
from fwguardd.ctl.ruleset_sources import RulesetChange, change_of
from fwguardd.enforce.impact import measure_impact, probes_of_host
from fwguardd.enforce.validate import Valid
from fwguardd.errors import ReportedError
from fwguardd.kernel.iptables import Backend
from fwguardd.packets.impact import Probes, impact_document
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.kernel.iptables import Tool
    from fwguardd.packets.impact import Impact
    from fwguardd.settings import Settings

_DENIALS_SINCE: Final = "1 hour ago"
MOST_EVENTS: Final = 10_000
"""Events about denials that are read: 10,000 take 0.2 s."""


@dataclass(frozen=True, slots=True)
class MeasuredImpact:
    """The impact of a change that was measured."""

    impact: Impact
    change: RulesetChange

    def document(self) -> dict[str, Any]:
        """It as JSON values."""
        return impact_document(self.impact, self.change.after)

    def lines(self, ink: AnswerPainter) -> Iterator[str]:
        """It as text."""
        yield from impact_lines(self.impact, self.change.after, ink)


@dataclass(frozen=True, slots=True)
class NotMeasured:
    """Why the impact of a change could not be measured."""

    reason: str

    def document(self) -> dict[str, Any]:
        """It as JSON values."""
        return {"sentence": None, "reason": self.reason}

    def lines(self, _ink: AnswerPainter) -> Iterator[str]:
        """It as text."""
        yield from wrapped(f"The impact was not measured: {self.reason}", "")


def impact_of_files(result: Valid, tool: Tool, source: OfflineInput) -> MeasuredImpact | NotMeasured:
    """The impact of loading files that were validated."""
    try:
        change = change_of(result, tool, source)
        with beds_with(tool) as beds:
            return MeasuredImpact(measured(change, beds), change)
    except ReportedError as error:
        return NotMeasured(str(error))


def print_impact(result: Valid, tool: Tool, source: OfflineInput) -> None:
    """Print the impact of loading files that were validated."""
    for line in impact_of_files(result, tool, source).lines(AnswerPainter()):
        print(line)


def print_impact_of_reload(status: Mapping[str, Any], settings: Settings) -> None:
    """Print the impact of a reload of the daemon's files, if they are valid; ``status`` is what the daemon says. One of
    another version may not say enough."""
    if not {"rules_dir", "backend"} <= status.keys():
        return
    rules_dir = Path(status["rules_dir"])
    backend, context = Backend(status["backend"]), settings.lint_context()
    source = OfflineInput((rules_dir,), rules_dir, backend, json=False, context=context)
    try:
        result, tool = validated(source)
    except ReportedError as error:
        print("\n".join(NotMeasured(str(error)).lines(AnswerPainter())))
        return
    if isinstance(result, Valid):
        print_impact(result, tool, source)


def measured(change: RulesetChange, beds: HostBeds) -> Impact:
    """The impact of a change. Raises NamespaceError."""
    denials, left_out = _denials()
    probes = probes_of_host(beds.routes, change.after, denials) + left_out
    return measure_impact(probes, change.before, change.after, beds.open, beds.with_sets(change.sets).open)


def _denials() -> tuple[list[Mapping[str, Any]], Probes]:
    """The denials of the last hour, and what of them is left out."""
    try:
        denials = list(islice(recent_denials(_DENIALS_SINCE), MOST_EVENTS + 1))
    except UnreadableError as error:
        return [], Probes((), (f"the denials of the last hour ({str(error).partition(';')[0]})",))
    if len(denials) <= MOST_EVENTS:
        return denials, Probes(())
    return denials[:MOST_EVENTS], Probes((), (f"denials of the last hour after the first {MOST_EVENTS:,} events",))
