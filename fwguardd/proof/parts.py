"""What the text of a rule asks of a packet, as parts that become formulas, and what the rule does with it.

This module is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fwguardd.proof.fields import PacketField
    from fwguardd.proof.intervals import Intervals


@dataclass(frozen=True, slots=True)
class Test:
    """A field has one of these values."""

    field: PacketField
    values: Intervals


@dataclass(frozen=True, slots=True)
class MaskTest:
    """The bits of a field that the mask has are these."""

    field: PacketField
    mask: int
    value: int


@dataclass(frozen=True, slots=True)
class Opposite:
    """A part that must not hold."""

    part: Part


@dataclass(frozen=True, slots=True)
class Some:
    """One of the parts holds, or more."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class UnmodelledMatch:
    """A match that is not modelled, in words: "-m time". One that ``is_steady`` has the same answer for the same packet
    in all rules of a chain; of another one, such as a limit, each rule has its own."""

    words: str
    is_steady: bool = False


Part = Test | MaskTest | Opposite | Some | UnmodelledMatch


class RuleEffect(Enum):
    """What a rule does with a packet that it matches."""

    CONTINUE = "continue"
    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"
    MARK = "mark"
    FREE_MARK = "free mark"
    NOTRACK = "notrack"
    DNAT = "dnat"
    PROGRAM = "program"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RuleTarget:
    """The effect of a rule. ``name`` is the chain of a jump, or the target in words.

    Of MARK, ``mask`` are the bits that are kept and ``value`` those that are turned then. Of DNAT, ``addresses`` and
    ``ports`` are those that the destination may become; None is "stays", and an address of this host if it is empty.
    """

    effect: RuleEffect
    name: str = ""
    mask: int = 0
    value: int = 0
    addresses: Intervals | None = None
    ports: Intervals | None = None


CONTINUE: Final = RuleTarget(RuleEffect.CONTINUE)


@dataclass(frozen=True, slots=True)
class RuleMeaning:
    """What a rule asks, all of it, and what it does."""

    parts: tuple[Part, ...]
    target: RuleTarget
