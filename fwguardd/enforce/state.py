"""The state between two passes: what the kernel held when it was compared last, and what became of the rule files.

`KernelState` and `FilesState` are the words of the command line, STATUS=, the events and the manual. What the kernel
holds is a measurement with its time: a revision that was loaded is in force only once it was compared.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fwguardd.enforce.kernel_state import FilesReport, FilesState, KernelState, Measured
from fwguardd.enforce.unknown import UnknownState, UnverifiedState
from fwguardd.ruleset.canonical import Canonical, Emptying, Owned, builtin_chains
from fwguardd.ruleset.model import FAMILIES, Findings
from fwguardd.ruleset.others import Others, Standing, of_standing
from fwguardd.store.model import RevisionKind
from fwguardd.values import dataclass
from fwguardd.wording import counted, local_time_of_day

if TYPE_CHECKING:
    from fwguardd.enforce.look import Look
    from fwguardd.kernel.iptables import Backend
    from fwguardd.ruleset.diff import Difference
    from fwguardd.ruleset.expiry import Ends
    from fwguardd.store.revisions import HeldFiles, PendingConfirmation, Revision


@dataclass(frozen=True, slots=True)
class InForce:
    """The revision that fwguardd put in force last.

    ``digest`` is that of its files, "" if the files have to be validated again. ``since`` is in seconds since 1970, and
    ``loaded_at`` in seconds of CLOCK_BOOTTIME; None if another process put it in force. ``by`` is the user that asked
    for it, "" for none. ``restored`` is the number of the revision that it put in force again, None for a new ruleset.
    ``file_digests`` are the rule files that it was made of, each with a digest of its bytes; while everything is open,
    those of the revision before. ``backend`` is the one that loaded it first, None if this process did. ``ends`` are
    its rules that end at a time.
    """

    revision: int
    digest: str
    canonical: Canonical
    since: float
    cause: str
    kind: RevisionKind = RevisionKind.RULES
    loaded_at: float | None = None
    by: str = ""
    restored: int | None = None
    file_digests: tuple[tuple[str, str], ...] = ()
    backend: Backend | None = None
    ends: Ends = ()

    def without_ended(self, now: float) -> InForce:
        """The same without the rules that have ended at this time, in seconds since 1970; itself if none have."""
        ended = frozenset(end.origin for end in self.ends if end.until <= now)
        if not ended:
            return self
        left = tuple(end for end in self.ends if end.until > now)
        return replace(self, canonical=self.canonical.without_origins(ended), ends=left)

    def next_end(self, now: float) -> float | None:
        """When the next rules end, after this time; None where none do."""
        return min((end.until for end in self.ends if end.until > now), default=None)

    @property
    def owned(self) -> Owned:
        """The tables that it owns."""
        return self.canonical.owned

    @property
    def rules(self) -> dict[str, int]:
        """The number of rules of each family, by the family's name in events."""
        counts = {family.value: 0 for family in FAMILIES}
        for family, ruleset in self.canonical.rulesets.items():
            counts[family.value] = ruleset.rule_count
        return counts

    @property
    def rule_count(self) -> int:
        """The number of rules in all tables of both families."""
        return sum(self.rules.values())


EMERGENCY_CAUSE = "emergency"
"""The cause of a revision that is the emergency set, which the daemon loaded itself."""


@dataclass(frozen=True, slots=True)
class RefusedFiles:
    """Files with errors: their digest, when they were validated (seconds since 1970), and the findings.

    ``waits`` says that each error is about something outside of the files, such as an ipset, that may come later.
    """

    digest: str
    when: float
    findings: Findings
    waits: bool = False

    @property
    def report(self) -> FilesReport:
        """What became of them, with the first error."""
        error = str(self.findings.errors[0])
        if self.waits:
            return FilesReport(FilesState.WAITING, f"{error}; fwguardd tries again")
        return FilesReport(FilesState.REFUSED, error)


@dataclass(frozen=True, slots=True)
class State:
    """The state between two passes.

    ``refused`` files are not validated again until they change, unless they wait. ``held`` files are not applied until
    a reload asks, however they change. ``blocked`` says why changed files could not be tried, "" if nothing prevented
    it. ``drift`` was reported and left alone, or could not be repaired, for the reason ``repair_failure``; it is not
    reported again until it changes. ``touched`` are tables that an interrupted pass had begun to write for the first
    time. ``unverified`` says what the last pass could not verify, and ``unverified_why`` for which reason. ``unknown``
    says what could not be read of the state directory. ``fallback`` is a copy, in memory, of the revision that an undo
    of the pending one puts in force. ``unrecorded`` is the revision in force if it could not be written to the disk.
    ``compared`` is when the kernel was compared last, and ``differs_since`` when drift was found first, in seconds
    since 1970. ``emergency`` says why the emergency set is loaded, "" if it is not. ``others`` are the rules of other
    programs in owned tables that are remembered. ``last_look`` is what the kernel held when it was compared last.
    ``interrupted`` is what the kernel held before a load that did not end, and that is not undone yet.
    """

    in_force: InForce | None = None
    refused: RefusedFiles | None = None
    drift: tuple[Difference, ...] = ()
    held: HeldFiles | None = None
    pending: PendingConfirmation | None = None
    touched: Owned = frozenset()
    unverified: UnverifiedState | None = None
    unknown: frozenset[UnknownState] = frozenset()
    fallback: InForce | None = None
    unrecorded: Revision | None = None
    compared: float | None = None
    differs_since: float | None = None
    repair_failure: str = ""
    unverified_why: str = ""
    emergency: str = ""
    blocked: str = ""
    others: Others = ()
    last_look: Look | None = None
    interrupted: InForce | None = None

    @property
    def owned(self) -> Owned:
        """All tables that are ours: those of the revision in force, and those that an interrupted pass wrote to."""
        if self.in_force is None:
            return self.touched
        return self.in_force.owned | self.touched

    @property
    def revision(self) -> int:
        """The number of the revision in force, 0 if there is none."""
        if self.in_force is None:
            return 0
        return self.in_force.revision

    @property
    def is_open(self) -> bool:
        """Whether everything is accepted on purpose."""
        return self.in_force is not None and self.in_force.kind is RevisionKind.OPEN

    def release(self, wanted: Owned) -> Emptying:
        """The tables of ours that the ruleset to be put in force does not name: they are emptied with it. A chain that
        had the policy DROP, and for which none is stated any more, gets ACCEPT; so do those of the emergency set."""
        policies = builtin_chains(self.touched - wanted)
        if self.emergency:
            policies |= builtin_chains(Owned((family, "filter") for family in FAMILIES))
        if self.in_force is not None:
            policies |= self.in_force.canonical.closed_policies
        return Emptying.for_release(self.owned, wanted, policies)

    def to_validate_again(self) -> State:
        """The same, with the files to be validated again though they did not change: what they name may have."""
        state = replace(self, refused=None, blocked="")
        if state.in_force is not None:
            state = replace(state, in_force=replace(state.in_force, digest=""))
        return state

    @property
    def waits(self) -> bool:
        """Whether the files wait for something outside of them, so that they have to be tried again."""
        return bool(self.blocked) or (self.refused is not None and self.refused.waits)

    def waits_with(self, digest: str) -> bool:
        """Whether refused files with this digest wait for something outside of them."""
        return self.refused is not None and self.refused.waits and self.refused.digest == digest

    def knows(self, digest: str) -> bool:
        """Whether files with this digest need no validation: they are in force, or refused, or held."""
        return any(known is not None and known.digest == digest for known in (self.in_force, self.refused, self.held))

    def seen(self, drift: tuple[Difference, ...], now: float) -> State:
        """The state after the kernel was compared with the revision in force at this time, in seconds since 1970."""
        if not drift:
            return replace(self, drift=(), compared=now, differs_since=None, repair_failure="", emergency="")
        return replace(self, drift=drift, compared=now, differs_since=self.differs_since or now)

    def after_failure(self, left: State, digest: str) -> State:
        """The state before a reload of files with this digest that failed, with what the failure has left."""
        blocked = left.blocked
        if self.knows(digest):
            blocked = ""
        return replace(
            self,
            touched=left.touched,
            interrupted=left.interrupted,
            unverified=left.unverified,
            unverified_why=left.unverified_why,
            drift=left.drift,
            compared=left.compared,
            differs_since=left.differs_since,
            repair_failure=left.repair_failure,
            emergency=left.emergency,
            blocked=blocked,
            others=left.others,
            held=left.held or self.held,
        )

    @property
    def sentence(self) -> str:
        """The state in one sentence, as `describe` prints it where drift is repaired."""
        return self.describe()

    def describe(self, why_not: str = "", *, settling: bool = False) -> str:
        """The state in one sentence, for people and for STATUS= of sd_notify(3).

        ``why_not`` says why drift is left alone, "" if it is repaired. ``settling``: changed files wait until there are
        no further changes.
        """
        clauses = [str(self.measured(why_not))]
        files = self.files(settling=settling)
        if files.state is not FilesState.APPLIED:
            clauses.append(str(files))
        if self.pending is not None and not self.pending.opening:
            clauses.append(f"revision {self.pending.number} waits to be confirmed")
        if UnknownState.PENDING in self.unknown:
            clauses.append("whether a revision waits to be confirmed cannot be read")
        return "; ".join(clauses)

    def measured(self, why_not: str = "") -> Measured:
        """What the kernel held when it was compared last. ``why_not`` says why drift is left alone, "" if it is not."""
        return Measured(self.kernel_state, self._facts(why_not))

    @property
    def kernel_state(self) -> KernelState:
        """What the kernel held when it was compared last, in one word."""
        conditions = (
            (UnknownState.REVISION in self.unknown or self.unverified is not None, KernelState.UNVERIFIED),
            (self.interrupted is not None, KernelState.UNVERIFIED),
            (self.is_emergency, KernelState.EMERGENCY),
            (self.in_force is None, KernelState.UNMANAGED),
            (self.is_open, KernelState.OPEN),
            (bool(self.drift or self.undecided), KernelState.DRIFTED),
            (self.compared is None, KernelState.UNVERIFIED),
        )
        for holds, state in conditions:
            if holds:
                return state
        return KernelState.IN_FORCE

    def _facts(self, why_not: str) -> str:
        match self.kernel_state:
            case KernelState.UNVERIFIED:
                return self._unverified_facts()
            case KernelState.EMERGENCY:
                return self._emergency_facts()
            case KernelState.UNMANAGED:
                return "fwguardd has loaded nothing"
            case KernelState.OPEN:
                return self._open_facts()
            case KernelState.DRIFTED:
                return self._drift_facts(why_not)
            case KernelState.IN_FORCE:
                return self._in_force_facts()

    @property
    def is_emergency(self) -> bool:
        """Whether the emergency set is loaded: by the boot loader, or by fwguardd."""
        return bool(self.emergency) or (self.in_force is not None and self.in_force.cause == EMERGENCY_CAUSE)

    def _in_force_facts(self) -> str:
        rule_count, compared = 0, ""
        if self.in_force is not None:
            rule_count = self.in_force.rule_count
        if self.compared is not None:
            compared = f", compared at {local_time_of_day(self.compared)}"
        return f"revision {self.revision}, {counted(rule_count, 'rule')}{compared}"

    def _unverified_facts(self) -> str:
        """What is not known, after what was known last where that accepts what no rule file says."""
        facts = self._not_known()
        if self.is_emergency:
            reason = self.emergency or "no revision could be put in force"
            facts = f"the last ruleset known to be loaded is the emergency set ({reason}); {facts}"
        elif self.is_open:
            facts = f"the last ruleset known to be loaded accepts everything{self._opened()}; {facts}"
        return facts

    def _not_known(self) -> str:
        if UnknownState.REVISION in self.unknown:
            return "the newest revision cannot be read; what the kernel holds is kept"
        if self.unverified is None:
            return f"the kernel has not been compared with revision {self.revision} yet"
        what = "what the kernel holds"
        if self.in_force is not None:
            what = f"whether the kernel holds revision {self.revision}"
        advice = "fwguardd tries again"
        if self.unverified is UnverifiedState.HIDDEN:
            advice = "remove the rule that iptables cannot show: nft -a list ruleset shows it"
        reason = self.unverified_why or "the kernel cannot be read at the moment"
        return f"{what} is not known: {reason}; {advice}"

    def _emergency_facts(self) -> str:
        loaded, what = "the emergency set is loaded, which accepts ssh, DHCP and little else", "it"
        if self.in_force is not None and self.in_force.cause != EMERGENCY_CAUSE:
            what = f"revision {self.revision}"
            loaded = f"{loaded}, in place of {what}"
        reason = self.emergency
        if self.repair_failure:
            reason = f"{what} cannot be loaded: {self.repair_failure}"
        return "; ".join(filter(None, [loaded, reason, "fwguardd tries again"]))

    def _opened(self) -> str:
        """By which user the firewall was opened, and when."""
        if self.in_force is None:
            return ""
        by = ""
        if self.in_force.by:
            by = f" by {self.in_force.by}"
        return f", opened{by} at {local_time_of_day(self.in_force.since)}"

    def _open_facts(self) -> str:
        until = "a reload"
        if self.pending is not None and self.pending.opening:
            until = f"{local_time_of_day(self.pending.wall_deadline)}, or until a reload"
        return f"everything is accepted{self._opened()} (revision {self.revision}), until {until}"

    @property
    def undecided(self) -> Others:
        """The rules that stay until an administrator decides about them."""
        return of_standing(self.others, Standing.UNDECIDED)

    def _undecided_facts(self) -> str:
        added = counted(len(self.undecided), "rule was", "rules were")
        return f"{added} added by an unknown process, decide about that: fwguardctl adopt"

    def _drift_facts(self, why_not: str) -> str:
        if not self.drift:
            return f"{self._undecided_facts()}; all other rules are those of revision {self.revision}"
        facts = self._own_drift_facts(why_not)
        if self.undecided:
            facts = f"{facts}; {self._undecided_facts()}"
        return facts

    def _own_drift_facts(self, why_not: str) -> str:
        places = f"{counted(len(self.drift), 'place differs', 'places differ')} from revision {self.revision}"
        since = ""
        if self.differs_since is not None:
            since = f" since {local_time_of_day(self.differs_since)}"
        if why_not:
            why = f"not repaired: {why_not}"
        elif self.repair_failure:
            why = f"the repair fails: {self.repair_failure}; fwguardd tries again"
        else:
            why = "the repair follows"
        return f"{places}{since}; {why}"

    def files(self, *, settling: bool = False) -> FilesReport:
        """What became of the rule files. ``settling``: changed files wait until there are no further changes."""
        if settling:
            return FilesReport(FilesState.SETTLING)
        if self.refused is not None:
            return self.refused.report
        why_held = self._why_held()
        if why_held:
            return FilesReport(FilesState.HELD, f"{why_held}; {self._how_to_apply()}")
        if self.blocked:
            return FilesReport(FilesState.WAITING, f"{self.blocked}; fwguardd tries again")
        if self.in_force is None or not self.in_force.digest:
            return FilesReport(FilesState.SETTLING, "they have not been validated yet")
        return FilesReport(FilesState.APPLIED)

    def _how_to_apply(self) -> str:
        """What applies held files: a reload, unless it would remove rules that an administrator has to decide about."""
        if self.in_force is None and self.undecided:
            return "to decide about them: fwguardctl adopt; to remove them: fwguardctl reload --take-over"
        return "fwguardctl reload applies them"

    def _why_held(self) -> str:
        """Why only a reload applies the files; "" if changes of them are applied."""
        if self.held is not None:
            return self.held.reason
        if self.is_open:
            return "the firewall is open"
        return ""
