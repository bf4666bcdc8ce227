"""The names and arguments of iptables' programs. The rehearsal worker takes them from here and runs nothing else."""

from __future__ import annotations

BACKENDS = ("nft", "legacy")

_PREFIX = {4: "iptables", 6: "ip6tables"}


def program(backend: str, family: int, verb: str) -> str:
    """The program of one backend ("nft", "legacy") and family (4, 6) for a verb ("restore", "save").

    Raises ValueError for anything else: what comes over a socket ends here.
    """
    if backend not in BACKENDS or family not in _PREFIX or verb not in ("restore", "save"):
        raise ValueError(f"no program for backend {backend!r}, family {family!r}, verb {verb!r}")
    return f"{_PREFIX[family]}-{backend}-{verb}"


def restore_argv(backend: str, family: int, *, noflush: bool, lock_seconds: int) -> list[str]:
    """Arguments to load a ruleset from standard input, counters included, waiting a bounded time for the lock."""
    argv = [program(backend, family, "restore"), "--counters", "-w", str(lock_seconds)]
    return [*argv, "--noflush"] if noflush else argv


def save_argv(backend: str, family: int) -> list[str]:
    """Arguments to print all tables with counters."""
    return [program(backend, family, "save"), "-c"]
