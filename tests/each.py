"""One test for many cases, for checks of a fraction of a millisecond.

To collect, distribute and report a test takes some milliseconds in each process of pytest-xdist and in their parent.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Case = TypeVar("Case")

_MOST_SHOWN = 10
"""Cases that failed whose tracebacks are shown; the others are counted."""


def each(cases: Iterable[Case], name: Callable[[Case], str]) -> Callable[[Callable[[Case], None]], Callable[[], None]]:
    """A decorator: a check of one case becomes a test of all of them, which names each case that fails."""

    def decorate(check: Callable[[Case], None]) -> Callable[[], None]:
        def test() -> None:
            failed = [f"{name(case)}:\n{reason}" for case in cases if (reason := _reason(check, case))]
            assert not failed, f"{len(failed)} cases failed\n" + "\n".join(failed[:_MOST_SHOWN])

        test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
        return test

    return decorate


def _reason(check: Callable[[Case], None], case: Case) -> str:
    try:
        check(case)
    except Exception:  # noqa: BLE001 - whatever fails a test fails this one.
        return traceback.format_exc()
    return ""
