"""asyncio without TLS, which nothing here uses: its libraries take 4 MiB of memory and 5 ms of each start."""

from __future__ import annotations

from fwguardd.left_out import left_out

with left_out("ssl"):
    import asyncio

__all__ = ("asyncio",)
