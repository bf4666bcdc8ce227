"""What is not known, because the kernel cannot be compared, or files of fwguardd cannot be read."""

from __future__ import annotations

from enum import Enum


class UnverifiedState(Enum):
    """What is not known while the kernel cannot be compared with the revision in force.

    In the first three states the kernel cannot be read at the moment: other programs change it without pause, or the
    system lacks memory, or iptables-save does not print all. The comparison is tried again. In the last one retrying
    does not help: the administrator has to remove the unsupported rule.
    """

    LOOK = "look"
    """Whether anything drifted."""

    WRITTEN = "written"
    """Whether a ruleset that was loaded without an error is still there."""

    UNDO = "undo"
    """Whether a load that failed left anything. If it did, that has to be undone."""

    HIDDEN = "hidden"
    """Whether anything drifted, because a table of ours holds a rule that iptables cannot show."""


class UnknownState(Enum):
    """What files of fwguardd hold and could not be read. Each pass tries to read it again."""

    REVISION = "revision"
    """The newest revision: what the kernel holds is kept."""

    PENDING = "pending"
    """Whether a revision waits to be confirmed: changed files are applied only by a reload."""

    HELD = "held"
    """Which files are held: those that were there at the start are."""

    TOUCHED = "touched"
    """Which tables an interrupted write had begun to fill: they stay as they are."""

    OTHERS = "others"
    """Which rules of other programs an administrator has decided about: those that are there are reported again."""

    BEFORE_LOAD = "before load"
    """What the kernel held before a load that did not end, where no revision says it: the kernel is left as it is."""


OF_FILES = frozenset({UnknownState.REVISION, UnknownState.PENDING, UnknownState.HELD})
"""What an opening and a rollback decide anew: after them it is known."""
