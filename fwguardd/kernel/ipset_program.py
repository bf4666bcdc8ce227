"""Loading and reading the kernel's sets with ipset(8).

It is run for whole sets only: its input and its output have a line for each entry. `fwguardd.kernel.ipsets` asks the
kernel itself what rules need to be known of sets.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.processes import Command, Finished, ProgramError, ProgramMissingError, run
from fwguardd.patterns import pattern
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PROGRAM: Final = "ipset"
LOAD_SECONDS: Final = 120.0
"""The longest that loading or reading a set may take; a million entries take about 3 s."""

_FACTS = pattern(r"^Name: (\S+)\nType: (\S+)\n(?:.*\n)*?Number of entries: ([0-9]+)$", re.MULTILINE)


class SetsNotLoadedError(Exception):
    """ipset(8) could not do what it was asked for. The message says why."""


@dataclass(frozen=True, slots=True)
class SetFacts:
    """The type of a set, and how many entries it has."""

    kind: str
    count: int


def facts_of_sets() -> Mapping[str, SetFacts]:
    """All sets of this network namespace, by their names. Raises SetsNotLoadedError."""
    facts: dict[str, SetFacts] = {}
    for name, kind, count in _FACTS.findall(_run(["list", "-t"])):
        facts[name] = SetFacts(kind, int(count))
    return facts


def save_set(name: str) -> str:
    """A set as ``ipset save`` prints it: the command that creates it, and one for each entry.

    Raises SetsNotLoadedError.
    """
    return _run(["save", name])


def restore_sets(script: str, unused: Iterable[str] = ()) -> None:
    """Run commands of ``ipset restore``, after destroying sets that an interrupted run has left behind.

    Raises SetsNotLoadedError. The commands before the one that failed have been run.
    """
    for name in unused:
        _destroy_leftover(name)
    _run(["-exist", "restore"], script)


def _destroy_leftover(name: str) -> None:
    """Remove a set of an interrupted run, whose ipset(8) may have removed it since. Raises SetsNotLoadedError."""
    try:
        destroy_set(name)
    except SetsNotLoadedError:
        if name in facts_of_sets():
            raise


def destroy_set(name: str) -> None:
    """Remove a set. Raises SetsNotLoadedError, as for one that rules name."""
    _run(["destroy", name])


def _run(arguments: list[str], stdin: str = "") -> str:
    try:
        finished = run(Command([_PROGRAM, *arguments], stdin), LOAD_SECONDS)
    except ProgramMissingError as error:
        raise SetsNotLoadedError("ipset is not installed; install it: apt install ipset") from error
    except ProgramError as error:
        raise SetsNotLoadedError(str(error)) from error
    if finished.code != 0:
        raise SetsNotLoadedError(_reason(finished))
    return finished.stdout


def _reason(finished: Finished) -> str:
    """The first line that ipset(8) printed of an error, without its name and version."""
    lines = finished.stderr.strip().splitlines()
    if not lines:
        return f"ipset ended with exit code {finished.code}"
    return re.sub(r"^ipset v[^:]*: ", "", lines[0])
