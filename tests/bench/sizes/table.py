"""The figures as text: a summary with a column for each size, and all medians with their spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.bench.sizes.figures import Figure, Figures


def table(figures: Figures) -> str:
    """The whole report."""
    head = [
        f"Machine: {figures.machine}",
        "A ratio is to a bare iptables-nft-restore of the same rules in the same run.",
    ]
    parts = ["\n".join(head), _aligned(summary(figures)), _aligned(_details(figures.found.values(), figures))]
    if figures.left_out:
        parts.append("\n".join(["Not measured:", *figures.left_out]))
    return "\n\n".join(parts)


def summary(figures: Figures) -> list[tuple[str, ...]]:
    """A row for each thing and program, with a median for each size, and the ratio behind durations."""
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for each in figures.found.values():
        rows.setdefault((each.what, each.program), {})[each.size] = _cell(each, figures.ratio(each))
    head = ("what", "program", *(_rules(size) for size in figures.sizes))
    return [head, *((*row, *(cells.get(size, "") for size in figures.sizes)) for row, cells in rows.items())]


def markdown(figures: Figures) -> str:
    """The summary as a table of a README."""
    head, *rows = summary(figures)
    lines = ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)]
    return "\n".join(lines)


def _cell(figure: Figure, ratio: float | None) -> str:
    unit = "" if figure.unit == "ms" else f" {figure.unit}"
    behind = "" if ratio is None else f" ({_number(ratio)})"
    return f"{_number(figure.median)}{unit}{behind}"


def _details(found: Iterable[Figure], figures: Figures) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("rules", "what", "program", "median", "least", "most", "unit", "rounds", "ratio")]
    for each in sorted(found, key=lambda each: each.size):
        ratio = figures.ratio(each)
        numbers = (_number(number) for number in (each.median, min(each.values), max(each.values)))
        shown = "" if ratio is None else _number(ratio)
        rows.append((_rules(each.size), each.what, each.program, *numbers, each.unit, str(len(each.values)), shown))
    return rows


def _rules(size: int) -> str:
    return f"{size:,}" if size else "shipped"


def _number(value: float) -> str:
    """Two or three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
