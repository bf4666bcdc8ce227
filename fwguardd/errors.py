"""The bases of errors that a program prints and ends with: their message says everything that the user needs.

This module is pure.
"""


class ReportedError(Exception):
    """An error that a program prints without a traceback. Its message names the fault and the next step."""


class NotPermittedError(ReportedError):
    """An error that another user, mostly root, would not have."""
