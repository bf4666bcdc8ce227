"""What was injected into steps, what held, and what was reported: the table that the tests of faults print."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Table:
    """Its lines, by step."""

    calls: dict[str, str] = field(default_factory=dict)
    """How much of each step can fail, in words."""
    injected: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    """Faults that were not met: a process that is disturbed makes a call less."""
    held: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    """Trials with another outcome or other events than without a fault. The others were not disturbed by it."""
    reported: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, name: str, outcome: str, *, held: bool, told: bool = True, met: bool = True) -> None:
        """Count a trial."""
        if not met:
            self.missed[name] += 1
            return
        self.injected[name] += 1
        self.held[name] += held
        self.told[name] += told
        self.reported.setdefault(name, Counter())[outcome] += 1

    def __str__(self) -> str:
        lines = [f"{'step':<38}{'injected':>9}{'missed':>7}{'held':>7}{'told':>7}  reported"]
        for name in dict.fromkeys([*self.injected, *self.missed]):
            number, reported = self.injected[name], self.reported.get(name, Counter())
            outcomes = ", ".join(f"{count} {outcome}" for outcome, count in reported.most_common())
            lines.append(
                f"{name:<38}{number:>9}{self.missed[name]:>7}{self.held[name]:>7}{self.told[name]:>7}  {outcomes}"
            )
        lines += [f"{name}: {calls}" for name, calls in self.calls.items()]
        return "\n".join(lines)
