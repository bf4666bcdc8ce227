"""Long output on a terminal goes through a pager, and only there."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

PRINTS = """
import sys
from fwguardd.ctl.pager import is_terminal, paged
with paged(wanted=sys.argv[1] == "long"):
    print("text", is_terminal())
print("after")
"""


def _on_terminal(*words: str, **environment: str) -> str:
    """What a person sees on a terminal."""
    master, slave = pty.openpty()
    variables = {"PATH": "/usr/bin:/bin", **environment}
    ran = subprocess.run([sys.executable, "-c", PRINTS, *words], stdout=slave, check=True, env=variables)
    os.close(slave)
    assert ran.returncode == 0
    with os.fdopen(master, "rb") as terminal:
        return terminal.read1().decode().replace("\r\n", "\n")


def test_a_pager_gets_the_output_and_the_program_goes_on_after_it() -> None:
    """The pager prints all of it; colours are meant for the terminal behind it; then output goes to the terminal."""
    assert _on_terminal("long", PAGER="sed s/^/paged:/") == "paged:text True\nafter\n"
    assert _on_terminal("long", FWGUARD_PAGER="sed s/^/ours:/", PAGER="false") == "ours:text True\nafter\n"


def test_no_pager_where_none_is_wanted_or_there_is_none() -> None:
    """Short output, an empty $PAGER, cat, and a program that does not exist: the output goes to the terminal."""
    for words, pager in (("short", "sed s/^/paged:/"), ("long", ""), ("long", "cat"), ("long", "/nonexistent")):
        assert _on_terminal(words, PAGER=pager) == "text True\nafter\n"


def test_a_pager_that_is_left_early_is_no_error() -> None:
    """As with q in less: what nobody reads is not printed, and nothing is reported."""
    assert _on_terminal("long", PAGER="true") in ("after\n", "")


def test_a_pipe_gets_no_pager() -> None:
    """Programs get the text itself."""
    ran = subprocess.run(
        [sys.executable, "-c", PRINTS, "long"], capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", "PAGER": "sed s/^/paged:/"},
    )  # fmt: skip
    assert ran.stdout == "text False\nafter\n"


def test_the_width_of_the_terminal() -> None:
    """It is that which the standard library finds: of $COLUMNS, of the terminal, or 80."""
    compare = (
        "import shutil; from fwguardd.ctl.pager import terminal_columns as ours\n"
        "print(ours(), ours() == shutil.get_terminal_size().columns)"
    )
    for said, expected in (
        ("72", "72 True"),
        ("0", "80 True"),
        ("-5", "80 True"),
        ("x", "80 True"),
        ("", "80 True"),
        ("9" * 5000, "80 True"),
    ):
        variables = {"PATH": "/usr/bin:/bin", "COLUMNS": said}
        ran = subprocess.run([sys.executable, "-c", compare], capture_output=True, text=True, check=True, env=variables)
        assert ran.stdout == f"{expected}\n", said
