"""What a pass needs to send packets through accepted files: beds, and who must not be locked out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from fwguardd.ruleset.model import NO_FINDINGS, Findings
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from fwguardd.packets.bed import Bed
    from fwguardd.packets.host import Host
    from fwguardd.packets.model import Packet
    from fwguardd.packets.policy_results import PolicyResult
    from fwguardd.ruleset.model import Family, Ruleset
    from fwguardd.ruleset.ssh_sessions import SshSession

    Rulesets = Mapping[Family, Ruleset]


class BedMaker(Protocol):
    """Makes beds. `fwguardd.kernel.bed.Beds` makes the real ones."""

    def prove(self, rulesets: Rulesets, host: Host) -> AbstractContextManager[Bed]:
        """A bed with these rulesets. Raises NamespaceError."""
        ...


@dataclass(frozen=True, slots=True)
class ProtectedPeers:
    """Who must not be locked out: the live ssh sessions, and those that the settings list."""

    sessions: tuple[SshSession, ...] = ()
    listed: tuple[SshSession, ...] = ()


@dataclass(frozen=True, slots=True)
class Prover:
    """What a proof needs: beds, the network of this host, whether an undecided test is an error, and who must not be
    locked out; without ``watched`` there is no lockout guard. ``read_host`` raises OSError. ``shown`` is what the
    kernel was last seen to hold; where a family is missing, it is read. ``may_watch`` is False where it is certain,
    without the network of the host, that nobody has to be watched."""

    beds: BedMaker
    read_host: Callable[[], Host]
    undecided_fails: bool = False
    watched: Callable[[Host], ProtectedPeers] | None = None
    shown: Callable[[], Rulesets] = dict
    may_watch: Callable[[], bool] = lambda: True


@dataclass(frozen=True, slots=True)
class ProofRequest:
    """Who asks for a change, for the lockout guard: the ssh session, whether the guard is overridden, and the command
    that overrides it."""

    forced: bool = False
    session: SshSession | None = None
    override: str = "fwguardctl reload --force --confirm 60s"


NOT_FORCED = ProofRequest()
"""Nobody asks: a file was changed."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What packets have shown. ``guarded`` says whether the lockout guard has sent its packets, or needed none;
    ``tried`` is the number of connections that it tried."""

    findings: Findings = NO_FINDINGS
    results: tuple[PolicyResult, ...] = ()
    guarded: bool = False
    tried: int = 0

    def and_findings(self, findings: Findings) -> Proof:
        """The same with these findings too."""
        return replace(self, findings=Findings((*self.findings, *findings)))


def needed_for(packets: Sequence[Packet], rulesets: Rulesets) -> Rulesets:
    """The rulesets of the families that packets have: to load the other one takes time, and decides nothing."""
    families = {packet.family for packet in packets}
    return {family: ruleset for family, ruleset in rulesets.items() if family in families}
