"""Many questions about the same formulas: a solver keeps what it has learned between them.

Each formula gets a name once; a question is a list of names that must hold together.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from fwguardd.errors import ReportedError
from fwguardd.proof.smtlib import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from fwguardd.proof.answers import Asker
    from fwguardd.proof.formulas import Formula, Scope, Variable

_BEGIN: Final = "(reset)(set-logic QF_FD)"
"""Of the logics of z3, the one for finite domains has a solver that goes on from the question before."""


class Questions:
    """Questions in one scope. ``always`` holds in all of them."""

    def __init__(self, scope: Scope, solver: Asker, variables: Iterable[Variable], always: Formula) -> None:
        self._solver, self._scope, self._variables, self._always = solver, scope, tuple(variables), always
        self.begin()

    def begin(self) -> None:
        """Begin anew: the solver was asked other things meanwhile. Names that were given before are unknown."""
        self._script = Script(self._scope)
        self._text = [_BEGIN, self._script.declare(self._variables), self._script.add((self._always,))]

    def name(self, formula: Formula) -> str:
        """A name for a formula."""
        text, name = self._script.name(formula)
        self._text.append(text)
        return name

    def ask(self, names: Iterable[str]) -> bool:
        """Whether all of these may hold together. Raises ReportedError."""
        text = "\n".join([*self._text, f"(check-sat-assuming ({' '.join(names)}))"])
        self._text = []
        answer = self._solver.ask(text)
        if "unknown" in answer:
            raise ReportedError("the solver found no answer")
        return "unsat" not in answer

    def values(self) -> Mapping[Variable, int]:
        """Values of all variables with which what was asked last holds. Raises ReportedError."""
        return self._script.values(self._solver.ask(self._script.question()))

    def find(self, names: Iterable[str]) -> Mapping[Variable, int] | None:
        """Values of all variables with which all of these hold; None if there are none. Raises ReportedError."""
        if not self.ask(names):
            return None
        return self.values()


_Item = TypeVar("_Item")


def least(
    group: Sequence[_Item], rest: Sequence[_Item], suffices: Callable[[Sequence[_Item]], bool]
) -> Sequence[_Item]:
    """As few items of a group as are needed besides the rest. All of them together are enough."""
    if not group or suffices(rest):
        return ()
    if len(group) == 1:
        return group
    half = len(group) // 2
    second = least(group[half:], [*rest, *group[:half]], suffices)
    return (*least(group[:half], [*rest, *second], suffices), *second)
