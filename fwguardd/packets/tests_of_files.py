"""What tests files say, as a value: a pass has one also where there is no such file, and imports nothing to read it.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.ruleset.model import NO_FINDINGS, Findings
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from fwguardd.packets.invariants import Invariant
    from fwguardd.packets.policy_tests import PolicyTest


@dataclass(frozen=True, slots=True)
class PolicyTests:
    """The tests of all files, in order, and the findings about the files. With an error there may be tests missing."""

    tests: tuple[PolicyTest, ...]
    findings: Findings
    invariants: tuple[Invariant, ...] = ()


NO_TESTS = PolicyTests((), NO_FINDINGS)
