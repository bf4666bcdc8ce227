"""The whole report of its facts: the top, and the sections in their order."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from fwguardd.ctl.report.answers import facts_of, headline_of, notices_of, state_of, tone_of
from fwguardd.ctl.report.happenings import changes_section, drift_section
from fwguardd.ctl.report.holdings import exposure_section, losses_section, rules_section, sets_section
from fwguardd.ctl.report.knocks import knocks_section, outgoing_section, time_section
from fwguardd.ctl.report.outline import Outline
from fwguardd.ctl.report.spans import minute
from fwguardd.wording import span

if TYPE_CHECKING:
    from fwguardd.ctl.report.facts import Facts


def outline_of(facts: Facts) -> Outline:
    """The report as an outline, the most important first."""
    state = state_of(facts)
    builders = (
        time_section, knocks_section, outgoing_section, changes_section, drift_section, exposure_section, rules_section,
        sets_section, losses_section,
    )  # fmt: skip
    return Outline(
        facts.host,
        f"{minute(facts.since)} to {minute(facts.now)} {_zone(facts.now)}, {span(facts.now - facts.since)}",
        f"fwguardd {facts.version}",
        state,
        headline_of(facts),
        tone_of(state),
        facts_of(facts),
        notices_of(facts),
        tuple(build(facts) for build in builders),
    )


def _zone(seconds: float) -> str:
    """The name of the local time zone."""
    return datetime.fromtimestamp(seconds).astimezone().tzname() or ""
