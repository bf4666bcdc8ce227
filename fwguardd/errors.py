"""The bases of errors that a program prints and ends with: their message says everything that the user needs; and what
a step raised, for whoever has to do something first and raises it again.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ReportedError(Exception):
    """An error that a program prints without a traceback. Its message names the fault and the next step."""


class NotPermittedError(ReportedError):
    """An error that another user, mostly root, would not have."""


def failure_of(step: Callable[[], object]) -> BaseException | None:
    """What a step raised, whatever that is, a defect or the end of the process included; None where it succeeded.

    The caller must raise it again, or give it to whoever asks for the result: what is only caught hides a defect.
    """
    try:
        step()
    except BaseException as failure:  # noqa: BLE001 - see above.
        return failure
    return None
