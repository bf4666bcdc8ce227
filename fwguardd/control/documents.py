"""The results of the control socket's verbs, as JSON objects with fixed keys.

The keys are a contract: a key is never renamed or removed, and a reader ignores keys that it does not know. Keys that
came after the first release are NotRequired, since a daemon of an earlier version leaves them out. Times are seconds
since 1970, durations are in seconds, and None means that there is nothing of the kind. This module is pure.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict


class RuleCounts(TypedDict):
    """The number of rules of each family."""

    ipv4: int
    ipv6: int


class FindingDocument(TypedDict):
    """A finding about a rule file; what is not known is None. ``severity`` is "error" or "warning"."""

    file: str | None
    line: int | None
    column: int | None
    severity: str
    code: str
    message: str
    hint: str | None
    text: str | None
    family: str | None


class InForceDocument(TypedDict):
    """The revision that was loaded last. ``kind`` is "rules" or "open", ``by`` the user that asked for it."""

    revision: int
    since: float
    cause: str
    rules: RuleCounts
    kind: str
    by: NotRequired[str | None]


class FightDocument(TypedDict):
    """Repairs that were given up: of which chain, who changes it, and for how long."""

    chain: str
    culprit: str
    seconds_left: float


class RepairsDocument(TypedDict):
    """The repairs of the last hour: how many, when the last one was, and who had caused the last one that is known."""

    count: int
    last: float
    culprit: str


class DriftDocument(TypedDict):
    """How the kernel differs from the revision in force: the number of differences, and each in words.

    ``undecided`` are rules of unknown processes, in words, that stay until an administrator decides. They are no
    differences.
    """

    count: int
    differences: list[str]
    undecided: NotRequired[list[str]]


class DriftStateDocument(DriftDocument):
    """The drift that was found last and left alone, and whether drift is repaired.

    ``unseen`` says why the kernel cannot be compared: "look", "written", "undo" or "hidden".
    """

    repair: bool
    paused_seconds: float | None
    fight: NotRequired[FightDocument | None]
    repairs: NotRequired[RepairsDocument | None]
    unseen: NotRequired[str | None]


class RefusalDocument(TypedDict):
    """The refusal of the files that are in the directory now."""

    when: float
    findings: list[FindingDocument]


class PendingDocument(TypedDict):
    """A revision that waits to be confirmed, and the one that comes back otherwise, at the time ``until``.

    With ``opening`` the firewall was opened for a time, and is closed by itself.
    """

    revision: int
    back_to: int | None
    seconds_left: float
    until: NotRequired[float]
    opening: NotRequired[bool]


class SettingsDocument(TypedDict):
    """Whether the settings file is used. ``state`` is "applied", or "refused" since a time and for a reason."""

    state: str
    since: float | None
    message: str | None


class FileChangeDocument(TypedDict):
    """A rule file that differs from the revision before. ``change`` is "added", "changed" or "removed"; ``owner`` is ""
    where it is not known."""

    file: str
    change: str
    owner: str


class HeldDocument(TypedDict):
    """Why the files in the directory are not applied until a reload is requested."""

    reason: str


class DenialsDocument(TypedDict):
    """What was read of the kernel log since the daemon started, and what became of it.

    ``lines`` = ``denied`` + ``logged`` + ``unparsed`` = ``told`` + ``summarised`` + ``waiting``. ``source`` is None
    while no source is read. ``why`` says why this source, or none, is read.
    """

    source: str | None
    position: str | None
    lines: int
    denied: int
    logged: int
    unparsed: int
    told: int
    summarised: int
    waiting: int
    lost: int
    why: NotRequired[str]
    dropped_events: NotRequired[int]


class StatusDocument(TypedDict):
    """The result of status.

    ``state`` is what the kernel held at the time ``compared``: "in-force", "drifted", "emergency", "open",
    "unverified" or "unmanaged". ``files`` is what became of the rule files: "applied", "refused", "held", "waiting" or
    "settling". ``state_facts`` and ``files_why`` say the facts in words. ``damaged`` has a sentence for each file in
    the state directory that was found damaged, or could not be read, since the start; ``set_problems`` one for each set
    file or list that is refused, stale, or differs from the kernel's set. ``tables`` are those that fwguardd owns, as
    "ipv4 filter".
    """

    version: str
    backend: str
    iptables: str
    rules_dir: str
    sentence: str
    in_force: InForceDocument | None
    drift: DriftStateDocument
    last_refusal: RefusalDocument | None
    pending: PendingDocument | None
    held: HeldDocument | None
    denials: DenialsDocument
    damaged: NotRequired[list[str]]
    set_problems: NotRequired[list[str]]
    settings: NotRequired[SettingsDocument]
    others: NotRequired[OtherCounts]
    state: NotRequired[str]
    state_facts: NotRequired[str]
    compared: NotRequired[float | None]
    files: NotRequired[str]
    files_why: NotRequired[str]
    tables: NotRequired[list[str]]


class OutcomeDocument(TypedDict):
    """The result of reload, confirm, rollback and open.

    ``outcome`` is "applied", "unchanged", "refused" or "failed"; ``sentence`` says what is in force afterwards.
    ``state`` and ``files`` are those of status.
    """

    outcome: str
    revision: int | None
    rules: RuleCounts
    changes: int
    findings: list[FindingDocument]
    reason: str | None
    pending: PendingDocument | None
    sentence: str
    state: NotRequired[str]
    files: NotRequired[str]


class RevisionDocument(TypedDict):
    """One line of history."""

    revision: int
    when: float
    cause: str
    by: str | None
    kind: str
    rules: RuleCounts
    files: int
    in_force: bool
    age_seconds: NotRequired[float]
    restored: NotRequired[int | None]
    changes: NotRequired[list[FileChangeDocument]]


class HistoryDocument(TypedDict):
    """The result of history: the revisions that are kept, newest first; the others are those of status."""

    revisions: list[RevisionDocument]
    damaged: list[str]
    state: NotRequired[str]
    sentence: NotRequired[str]


class FileDocument(TypedDict):
    """A rule file as it was."""

    path: str
    text: str


class ShowDocument(TypedDict):
    """The result of show. ``texts`` holds the canonical text of each family."""

    revision: int
    when: float
    cause: str
    by: str | None
    backend: str
    iptables: str
    kernel: str
    files: list[FileDocument]
    texts: dict[str, str]


class OtherRuleDocument(TypedDict):
    """A rule of another program in an owned table, or a chain with all that is in it: then ``rule`` is None.

    ``standing`` is "kept", "undecided" or "removed"; ``preserve`` is the line for the settings that preserves it.
    """

    number: int
    family: str
    table: str
    chain: str
    rule: str | None
    who: str
    when: float
    standing: str
    preserve: str


class OthersDocument(TypedDict):
    """The result of others."""

    rules: list[OtherRuleDocument]


class OtherCounts(TypedDict):
    """The number of rules of other programs that are kept, and of those to be decided about."""

    kept: int
    undecided: int


class PauseDocument(TypedDict):
    """The result of pause and resume: for how long drift is left alone."""

    paused_seconds: float | None


class RuleCountDocument(TypedDict):
    """What a rule, or the policy of a chain, has counted. ``since`` is when it was first in force, ``last`` when it
    counted last, to the minute; None if it never did. ``file`` and ``line`` are None where the origin is not known."""

    family: str
    table: str
    chain: str
    rule: str
    file: str | None
    line: int | None
    packets: int
    bytes: int
    since: float
    last: float | None


class CountersDocument(TypedDict):
    """The result of counters: the rules in force, in their order."""

    rules: list[RuleCountDocument]


class MetricSampleDocument(TypedDict):
    """A value of a metric, with its labels."""

    name: str
    labels: dict[str, str]
    value: float


class MetricFamilyDocument(TypedDict):
    """A metric as Prometheus has it. ``type`` is "gauge", "counter" or "histogram"."""

    name: str
    type: str
    help: str
    samples: list[MetricSampleDocument]


class MetricsDocument(TypedDict):
    """The result of metrics."""

    families: list[MetricFamilyDocument]
