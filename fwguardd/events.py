"""Every event that fwguardd tells, in one table: name, MESSAGE_ID, priority, sentence, fields.

Names and ids are a contract: people filter by them, and the message catalog explains them. Priorities are those of
syslog(3). No event of the denial road is above warning, since journald syncs its files to disk for each message at
critical or above.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

ERROR, WARNING, NOTICE, INFO, DEBUG = 3, 4, 5, 6, 7


@dataclass(frozen=True, slots=True)
class EventKind:
    """A kind of event. ``message_id`` is a fixed random 128-bit id in journald's sense (sd-id128(3))."""

    name: str
    message_id: str
    priority: int
    meaning: str


class Emit(Protocol):
    """Whoever is told of events: takes the kind, the sentence for people, and the fields for programs."""

    def __call__(self, kind: EventKind, message: str, /, **fields: Any) -> None:
        """Tell one event. Never raises, never waits."""


STARTED = EventKind(
    "daemon.started",
    "8496bacebfa44361b52a67b9000d6380",
    INFO,
    "The daemon runs; it says with which iptables and which directory.",
)
STOPPING = EventKind(
    "daemon.stopping", "f35fff0c10d64c6fbb0affdebc3251e6", INFO, "The daemon stops. The rules stay in force."
)
SETTINGS_REJECTED = EventKind(
    "settings.rejected",
    "27bf84cb541a44acb1d94b6a0739b8b4",
    ERROR,
    "A reload found bad settings; those before stay in force.",
)
APPLIED = EventKind(
    "rules.applied", "571ef592ad3e4e63a163335d8bf3c27c", NOTICE, "A ruleset was put in force and verified."
)
UNCHANGED = EventKind(
    "rules.unchanged",
    "953d574e8a1640b8a164ae962e52a332",
    DEBUG,
    "The kernel already holds what the files say; nothing was written.",
)
REJECTED = EventKind(
    "rules.rejected",
    "ffa9a18b1dcf46a3b8d4beb53d048f02",
    ERROR,
    "The rule files cannot be put in force; what was in force stays in force.",
)
TAKEN_BACK = EventKind(
    "rules.taken-back",
    "b77ab85725ed4469b75194550bcdb0c6",
    NOTICE,
    "A refused change was taken back; the files are again those that are in force.",
)
FINDING = EventKind(
    "rules.finding",
    "d44d59dedaf54cac9490a55998fbd9f7",
    WARNING,
    "Something in a rule file that its author should know.",
)
APPLY_FAILED = EventKind(
    "rules.failed",
    "4816a63490954bc283c2782eec36558c",
    ERROR,
    "Putting a ruleset in force failed; the message says what is in force now.",
)
BROKEN = EventKind(
    "rules.broken",
    "ada8c0d019ac4c79bb3627fa39611a47",
    ERROR,
    "A load failed half-way and could not be undone: the kernel may hold parts of two rulesets.",
)
UNSEEN = EventKind(
    "rules.unseen",
    "029f6beb3d5948c4a98883e24c51a4c0",
    WARNING,
    "The kernel cannot be looked at, because others change it without pause; what was written last counts as in force.",
)
SEEN = EventKind(
    "rules.seen",
    "3481f6d708b64377b81dfd83d705c8fb",
    NOTICE,
    "The kernel could be looked at again, and holds what it should.",
)
ELSEWHERE = EventKind(
    "rules.elsewhere",
    "338eff82fce9413582b5bcb4c309bba1",
    WARNING,
    "Rules outside of fwguardd's tables see this host's packets too; told once, and again when that changed.",
)
CONFIRMED = EventKind(
    "rules.confirmed",
    "372082bbacda42e9a955d0181680c8fa",
    NOTICE,
    "Somebody confirmed a revision that would have been undone.",
)
UNCONFIRMED = EventKind(
    "rules.unconfirmed",
    "21e93e7ff6de49db98f8977832114cd0",
    WARNING,
    "Nobody confirmed a revision in time; it is undone.",
)
STATE_DAMAGED = EventKind(
    "state.damaged",
    "a757a80df5e04b168a26452b290c50db",
    WARNING,
    "Something that fwguardd keeps on disk was damaged, and was set aside.",
)
STATE_FAILED = EventKind(
    "state.failed",
    "a7edb848f9094b6d83c883f183bbe999",
    ERROR,
    "Something could not be kept on disk; what is in force is not touched by that.",
)
BOOT_REPORT = EventKind(
    "boot.report",
    "b9689b853f0d4f368751bea9ac0b2d93",
    NOTICE,
    "What the boot loader put in force before the daemon started.",
)
CONTROL_CLOSED = EventKind(
    "control.unavailable",
    "3da292d324f74b06912e7bfc61a97a18",
    WARNING,
    "The control socket cannot be made; fwguardctl cannot reach the daemon.",
)
DRIFT = EventKind(
    "drift.detected", "bc6a8bd14da0471c88c7d250c3bba467", WARNING, "Somebody else changed what fwguardd owns."
)
REPAIRED = EventKind("drift.repaired", "e1a5bd4b7a9a4c60bedfe62f7867dcfb", NOTICE, "Drift was undone.")
FIGHT = EventKind(
    "drift.fight",
    "9532392743f24eaca09be76449d1cd00",
    ERROR,
    "Somebody undoes each repair; fwguardd stops repairing for a while.",
)
HIDDEN = EventKind(
    "drift.hidden",
    "2d40448d5fb24a8ba219ad495ee328f9",
    ERROR,
    "Somebody put into an owned table what iptables cannot show; nothing is compared or repaired until it is gone.",
)
NOTICES_LOST = EventKind(
    "drift.unnoticed",
    "6f35e63688f642e4b2e69d1ec1752b99",
    WARNING,
    "Changes of others cannot be noticed at once; they are found by the timer.",
)
DENIED = EventKind(
    "denied", "07242b5be33a42b685615e71d6680c85", WARNING, "The kernel logged a packet that a rule denied."
)
LOGGED = EventKind(
    "logged",
    "2261b77b57e84aa3afca54fe6037f89e",
    INFO,
    "The kernel logged a packet under a prefix that means no denial.",
)
DENIED_SUMMARY = EventKind(
    "denied.summary",
    "ca53d4fe354e462a8e3b58c8f66f8754",
    WARNING,
    "So many more denied packets of a flow were logged between two times; they were not told one by one.",
)
LOGGED_SUMMARY = EventKind(
    "logged.summary",
    "4f650d3ad770439abb8685aed83363eb",
    INFO,
    "So many more packets of a flow were logged between two times, under a prefix that means no denial.",
)
SCAN = EventKind(
    "denials.scan",
    "016a84b632fb4b92a9e5c9cffc84508f",
    WARNING,
    "One source was denied many ports within a short time. Its address may be forged.",
)
SWEEP = EventKind(
    "denials.sweep",
    "97c4a6c550a747b7bd68f4a86a40e34f",
    WARNING,
    "One source was denied at many hosts within a short time. Its address may be forged.",
)
DENIALS_READING = EventKind(
    "denials.reading",
    "45fb116cd3ad4c469f9122077c9bc51a",
    INFO,
    "Denials are read; it says from where, and since when.",
)
DENIALS_UNHEARD = EventKind(
    "denials.unheard",
    "cd1b31e9a412476f943a43cb8d5a314b",
    WARNING,
    "Rules log in a way that the source of denials does not hear; the message names them.",
)
DENIALS_LOST = EventKind(
    "denials.lost",
    "743a2c27b37545aab09ca9caf242edd3",
    WARNING,
    "Kernel records or copied packets were lost before they could be read; their number is exact.",
)
DENIALS_UNPARSED = EventKind(
    "denials.unparsed",
    "403c82be62db44868257d9e55c833eab",
    WARNING,
    "A kernel line has a watched prefix and an unknown form.",
)
DENIALS_CLOSED = EventKind(
    "denials.unavailable",
    "6bb73e423ff141a2b84ddd55652b25b2",
    WARNING,
    "No source of denials can be read; they are not told until one can. The message says why and what comes next.",
)
DROPPED = EventKind(
    "events.dropped",
    "76c60437edc64a7380755f3fd8456c8f",
    WARNING,
    "Journald did not take events for so long that some of them were dropped.",
)
FAULT = EventKind(
    "daemon.fault",
    "f1e09e33018f45e7b55b3a8218f81f34",
    ERROR,
    "A defect in fwguardd: a part of it failed and goes on without the failed step.",
)

ALL_EVENTS: Mapping[str, EventKind] = {
    kind.name: kind for kind in tuple(globals().values()) if isinstance(kind, EventKind)
}
