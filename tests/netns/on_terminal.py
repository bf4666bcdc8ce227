"""fwguardctl on a terminal of 80 columns."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

from tests.netns.test_whole_directory import ROOT

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = 80
_COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")
_RULE = re.compile(r" *[-+ ]+ *-[ANP] |    -|@@ ")
"""A rule, which stays whole, and the name of a chain."""


def on_terminal(*argv: str | Path) -> str:
    """What fwguardctl prints on a terminal, without colours."""
    reader, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 25, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    command = [sys.executable, "-m", "fwguardd.ctl.main", *argv]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=terminal, env={**environment, "FWGUARD_PAGER": "cat"}
    ) as running:
        os.close(terminal)
        text = b"".join(iter(lambda: _read(reader), b""))
    os.close(reader)
    assert running.returncode in (0, 1), (argv, text)
    return _COLOUR.sub("", text.decode()).replace("\r\n", "\n")


def _read(reader: int) -> bytes:
    """The next bytes; a terminal that nobody writes to any more is EIO (pty(7))."""
    try:
        return os.read(reader, 4096)
    except OSError:
        return b""


def too_wide(text: str) -> list[str]:
    """The lines that do not fit, but for rules, and words that have to stay whole."""
    wide = [line for line in text.splitlines() if len(line) > COLUMNS]
    return [line for line in wide if " " in line.strip() and _RULE.match(line) is None]
