"""Every event of fwguardd: its name, MESSAGE_ID, priority, meaning and fields.

Names, ids and fields are a contract: administrators filter by them, and the message catalog and the manual explain
them. An event has those of its fields for which there is a value. Priorities are those of syslog(3). No event about
packets is above warning: journald syncs its files to disk for each message at critical or above.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from fwguardd.event_fields import (
    AUTHORS,
    BOOT,
    CAUSE,
    CHANGES,
    CODE,
    DAEMON,
    DIFFERENCES,
    FILE,
    FILES,
    FLOW,
    LOST,
    OF_OTHERS,
    PACKET,
    PREFIX,
    REASON,
    REVISION,
    RULE,
    RULES,
    SET,
    SOURCE,
    SPOOFABLE,
    STATE,
    SUMMARY,
    SUPPRESSED,
    TIME,
    TRACEBACK,
    TURNED,
    UNPARSED,
    list_of,
    number,
    text,
)
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.event_fields import Field

ERROR, WARNING, NOTICE, INFO, DEBUG = 3, 4, 5, 6, 7


@dataclass(frozen=True, slots=True)
class EventKind:
    """A kind of event. ``message_id`` is a fixed random 128-bit id in journald's sense (sd-id128(3))."""

    name: str
    message_id: str
    priority: int
    meaning: str
    fields: tuple[Field, ...] = ()


def urgent(kind: EventKind) -> EventKind:
    """The kind, for an event that must wake somebody: its priority is at least err."""
    return replace(kind, priority=min(kind.priority, ERROR))


class Emit(Protocol):
    """Takes an event: its kind, a sentence for people, and the fields for programs."""

    def __call__(self, kind: EventKind, message: str, /, **fields: Any) -> None:
        """Emit one event, from any thread. Never raises, never waits."""


STARTED = EventKind(
    "daemon.started",
    "8496bacebfa44361b52a67b9000d6380",
    INFO,
    "The daemon has started; the message names its iptables and its rules directory.",
    DAEMON,
)
STOPPING = EventKind(
    "daemon.stopping", "f35fff0c10d64c6fbb0affdebc3251e6", INFO, "The daemon is stopping; the rules stay in force."
)
SETTINGS_REJECTED = EventKind(
    "settings.rejected",
    "27bf84cb541a44acb1d94b6a0739b8b4",
    ERROR,
    "A reload found an error in the settings; the settings from before stay in force.",
)
APPLIED = EventKind(
    "rules.applied",
    "571ef592ad3e4e63a163335d8bf3c27c",
    NOTICE,
    "A ruleset was put in force and verified.",
    (REVISION, RULES, CAUSE, CHANGES, DIFFERENCES, STATE),
)
UNCHANGED = EventKind(
    "rules.unchanged",
    "953d574e8a1640b8a164ae962e52a332",
    DEBUG,
    "The kernel already holds what should be in force; nothing was written.",
    (REVISION, RULES, CAUSE, STATE),
)
REJECTED = EventKind(
    "rules.rejected",
    "ffa9a18b1dcf46a3b8d4beb53d048f02",
    ERROR,
    "The rule files have errors; the ruleset that was in force stays in force.",
    (list_of("finding", "One finding, with file and line."), CODE, FILE, REVISION, STATE, FILES, *AUTHORS),
)
TAKEN_BACK = EventKind(
    "rules.taken-back",
    "b77ab85725ed4469b75194550bcdb0c6",
    NOTICE,
    "A refused change was reverted: the rule files are again those of the revision in force.",
    (REVISION,),
)
HELD = EventKind(
    "rules.held",
    "f3083f5f8f604a40aa88be4ad40c8565",
    NOTICE,
    "The rule files changed and are valid, and are not applied until a reload asks; the message says why.",
    (REVISION, REASON),
)
FINDING = EventKind(
    "rules.finding",
    "d44d59dedaf54cac9490a55998fbd9f7",
    WARNING,
    "A rule file holds something that its author should check.",
    (CODE, FILE),
)
APPLY_FAILED = EventKind(
    "rules.failed",
    "4816a63490954bc283c2782eec36558c",
    ERROR,
    "Putting a ruleset in force failed; the message says what the kernel holds now.",
    (REVISION, REASON, STATE, FILES),
)
BROKEN = EventKind(
    "rules.broken",
    "ada8c0d019ac4c79bb3627fa39611a47",
    ERROR,
    "A load failed half-way and could not be undone: the kernel may hold parts of two rulesets.",
    (REVISION, STATE),
)
UNVERIFIED = EventKind(
    "rules.unseen",
    "029f6beb3d5948c4a98883e24c51a4c0",
    WARNING,
    "The kernel's rules could not be read, or not all of them, so what it holds is not known.",
    (REVISION, REASON, STATE, *AUTHORS),
)
VERIFIED = EventKind(
    "rules.seen",
    "3481f6d708b64377b81dfd83d705c8fb",
    NOTICE,
    "The kernel's rules could be read again, and are those of the revision in force.",
    (REVISION, STATE),
)
OTHER_RULES = EventKind(
    "rules.elsewhere",
    "338eff82fce9413582b5bcb4c309bba1",
    WARNING,
    "Rules outside of fwguardd's tables see this host's packets too; emitted again when they change.",
    (list_of("table", "One such table, with its hooks, priorities and policies."),),
)
CONFIRMED = EventKind(
    "rules.confirmed",
    "372082bbacda42e9a955d0181680c8fa",
    NOTICE,
    "A revision that waited for confirmation was confirmed.",
    (REVISION,),
)
PENDING = EventKind(
    "rules.pending",
    "1aea56baf15f461aa6ddc4b8ad331943",
    WARNING,
    "A revision is in force and is undone unless it is confirmed; the message says when.",
    (REVISION,),
)
IMPACT = EventKind(
    "rules.impact", "f74742632bd6a73bf26359f8d49d33d3", NOTICE, "The impact of a change to be confirmed.", TURNED
)
CLOSED = EventKind(
    "rules.closed",
    "349b09b63247459c87ae532cf66ed031",
    NOTICE,
    "The time for which the firewall was opened is over; what was in force before is loaded.",
    (REVISION,),
)
UNCONFIRMED = EventKind(
    "rules.unconfirmed",
    "21e93e7ff6de49db98f8977832114cd0",
    WARNING,
    "A revision was not confirmed in time and is undone.",
    (REVISION,),
)
STATE_DAMAGED = EventKind(
    "state.damaged",
    "a757a80df5e04b168a26452b290c50db",
    WARNING,
    "A file in the state directory was damaged, and was set aside.",
)
STATE_FAILED = EventKind(
    "state.failed",
    "a7edb848f9094b6d83c883f183bbe999",
    ERROR,
    "The state directory could not be written; the rules in force are not affected.",
)
ANSWERS = EventKind("state.answers", "3ea903f8f39e4b478ca2500a9b6088d6", NOTICE, "The state directory answers again.")
BOOT_REPORT = EventKind(
    "boot.report",
    "b9689b853f0d4f368751bea9ac0b2d93",
    NOTICE,
    "What the boot loader put in force before the daemon started.",
    BOOT,
)
CONTROL_CLOSED = EventKind(
    "control.unavailable",
    "3da292d324f74b06912e7bfc61a97a18",
    WARNING,
    "The control socket could not be created; fwguardctl cannot reach the daemon.",
)
DRIFT = EventKind(
    "drift.detected",
    "bc6a8bd14da0471c88c7d250c3bba467",
    WARNING,
    "Another program changed what fwguardd owns.",
    (REVISION, CHANGES, DIFFERENCES, LOST, STATE, *AUTHORS),
)
REPAIRED = EventKind(
    "drift.repaired",
    "e1a5bd4b7a9a4c60bedfe62f7867dcfb",
    NOTICE,
    "Drift was repaired, and the kernel was compared after it.",
    (REVISION, CHANGES, STATE),
)
OTHERS_KEPT = EventKind(
    "drift.kept",
    "e837b4040c6e490093b2c2d4997b6c9f",
    NOTICE,
    "Rules of other programs in owned tables stay: a service has added them, or an administrator adopted them.",
    (OF_OTHERS, *AUTHORS),
)
OTHERS_UNDECIDED = EventKind(
    "drift.undecided",
    "d3326b443ef1433aa0f5fbf7e589fcc5",
    WARNING,
    "Rules were added to an owned table, and it is not known whether by a service; they stay until fwguardctl adopt.",
    (OF_OTHERS, *AUTHORS),
)
UNMANAGED = EventKind(
    "rules.unmanaged",
    "e197b5a07ec848519e98d13456d1c88d",
    ERROR,
    "Before the first load the tables of the rule files hold rules of other programs; nothing is removed or loaded.",
    (OF_OTHERS,),
)
FIGHT = EventKind(
    "drift.fight",
    "9532392743f24eaca09be76449d1cd00",
    ERROR,
    "Another program undoes each repair; fwguardd stops repairing for a while.",
    (text("chain", "The chain that was repaired most often."), STATE, *AUTHORS),
)
HIDDEN = EventKind(
    "drift.hidden",
    "2d40448d5fb24a8ba219ad495ee328f9",
    ERROR,
    "An owned table holds what iptables cannot show, and is neither compared nor repaired until that is removed.",
    (REVISION, REASON, STATE, *AUTHORS),
)
NOTICES_LOST = EventKind(
    "drift.unnoticed",
    "6f35e63688f642e4b2e69d1ec1752b99",
    WARNING,
    "The kernel's change notices are not available; changes are found by the timer.",
)
WATCH_REFUSED = EventKind(
    "rules.unnoticed",
    "3f0d5cbe8e7f4c1b9d1a6c2be4a57d90",
    WARNING,
    "The rules directory cannot be watched; changes of its files are found by the timer.",
    (REASON,),
)
UNTRACKED = EventKind(
    "rules.untracked", "c59f0a4f5f9d4d3c8d0b7c21e6a94f18", WARNING, "Older connections could not be tracked.", (REASON,)
)
DENIED = EventKind(
    "denied", "07242b5be33a42b685615e71d6680c85", WARNING, "The kernel logged a packet that a rule denied.", PACKET
)
LOGGED = EventKind(
    "logged",
    "2261b77b57e84aa3afca54fe6037f89e",
    INFO,
    "The kernel logged a packet under a prefix that does not mean a denial.",
    PACKET,
)
DENIED_SUMMARY = EventKind(
    "denied.summary",
    "ca53d4fe354e462a8e3b58c8f66f8754",
    WARNING,
    "Further denied packets of a flow, counted instead of reported one by one.",
    (*PREFIX, *FLOW, RULE, *SUMMARY),
)
LOGGED_SUMMARY = EventKind(
    "logged.summary",
    "4f650d3ad770439abb8685aed83363eb",
    INFO,
    "Further packets of a flow, counted instead of reported one by one, under a prefix that does not mean a denial.",
    (*PREFIX, *FLOW, RULE, *SUMMARY),
)
SCAN = EventKind(
    "denials.scan",
    "016a84b632fb4b92a9e5c9cffc84508f",
    WARNING,
    "One source was denied at many ports within a short time; its address may be forged.",
    (FLOW[2], number("count", "Of a scan, the ports."), list_of("ports", "One port, such as tcp/23."), SPOOFABLE, TIME),
)
SWEEP = EventKind(
    "denials.sweep",
    "97c4a6c550a747b7bd68f4a86a40e34f",
    WARNING,
    "One source was denied at many hosts within a short time; its address may be forged.",
    (FLOW[2], number("count", "Of a sweep, the hosts."), list_of("hosts", "One destination address."), SPOOFABLE, TIME),
)
DENIALS_READING = EventKind(
    "denials.reading",
    "45fb116cd3ad4c469f9122077c9bc51a",
    INFO,
    "Denials are read; the message says from which source, and from which line on.",
    (SOURCE, text("why", "Why this source was chosen; missing where the settings name it.")),
)
RULES_NOT_READ = EventKind(
    "denials.unheard",
    "cd1b31e9a412476f943a43cb8d5a314b",
    WARNING,
    "Rules log to a place that is not the source of denials; the message names them.",
    (SOURCE, list_of("rules", "One rule that logs to another place, by file and line.")),
)
DENIALS_LOST = EventKind(
    "denials.lost",
    "743a2c27b37545aab09ca9caf242edd3",
    WARNING,
    "Kernel records or copied packets were lost before they could be read; their number is exact.",
    (SOURCE, number("count", "Of lost denials, the number of records or packets that were lost.")),
)
DENIALS_SUPPRESSED = EventKind(
    "denials.suppressed",
    "a37f6dab58584bf99c2559fd38085d2f",
    NOTICE,
    "The limit of a rule that logs has suppressed lines; the message says from which counters this is known.",
    (*PREFIX, RULE, *SUPPRESSED),
)
DENIALS_UNPARSED = EventKind(
    "denials.unparsed",
    "403c82be62db44868257d9e55c833eab",
    WARNING,
    "A kernel line has a watched prefix and an unknown form.",
    UNPARSED,
)
DENIALS_UNAVAILABLE = EventKind(
    "denials.unavailable",
    "6bb73e423ff141a2b84ddd55652b25b2",
    WARNING,
    "Denials cannot be read; the message says why and when the next attempt is.",
    (REASON,),
)
SET_LOADED = EventKind(
    "set.loaded", "3a1ebd63d0350b91d72278b3d8448fe0", INFO, "A set has the entries of its file.", SET
)
SET_REFUSED = EventKind(
    "set.refused", "044dbcfec640a745a6076d9fc70840b4", ERROR, "A set file cannot be used; the set is as it was.", SET
)
METRICS_FAILED = EventKind(
    "metrics.failed", "f77f7d64edf3487990f0cd406b8f16d8", WARNING, "Writing the file of metrics failed.", (REASON,)
)
DROPPED = EventKind(
    "events.dropped",
    "76c60437edc64a7380755f3fd8456c8f",
    WARNING,
    "Events were dropped because the log did not accept them for too long.",
    (number("count", "Of dropped events, the number of events that were dropped."),),
)
FAULT = EventKind(
    "daemon.fault",
    "f1e09e33018f45e7b55b3a8218f81f34",
    ERROR,
    "A defect in fwguardd: one step failed, and the daemon continues without it.",
    (TRACEBACK,),
)

ALL_EVENTS: Mapping[str, EventKind] = {one.name: one for one in tuple(globals().values()) if isinstance(one, EventKind)}
