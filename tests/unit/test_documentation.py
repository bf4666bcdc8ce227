"""The documentation of the checkout names what exists: files, modules, and the terms of the glossary."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

import fwguardd
from fwguardd.ruleset.known_programs import KNOWN_PROGRAMS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "fwguardd"
PAGES = ("README.md", "packaging/CONTRIBUTING.md", "packaging/DESIGN.md")
MOST_TERMS = 30


def _layout() -> list[str]:
    """The lines of the package layout in the docstring of the package."""
    assert fwguardd.__doc__ is not None
    block = fwguardd.__doc__.split("exact list::\n\n")[1].split("\n\n")[0]
    return block.splitlines()


def test_the_readme_counts_the_known_programs() -> None:
    """The README names three known programs and the number of the others."""
    named = re.search(r"Docker, Kubernetes, fail2ban and (\d+) other programs", (ROOT / "README.md").read_text())
    assert named is not None
    assert int(named[1]) + 3 == len(KNOWN_PROGRAMS)


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    """A path in a page that begins with a directory of the checkout is a file or directory there."""
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"(?<![\w/.-])((?:fwguardd|packaging|tests|etc)/[\w./-]*\w)", text)
    invented = {"tests/golden/NN-name", "fwguardd/kernel/NAME.py"}
    missing = {name for name in named if name not in invented and not (ROOT / name).exists()}
    assert not missing
    assert named, f"{page} names no file; is the pattern of this test still right?"


def test_the_layout_names_every_package_and_module() -> None:
    """Every package and every module of the top level stands in the layout, and nothing else does."""
    named = {name.strip() for line in _layout() for name in re.split(r"  +", line.strip())[0].split(",")}
    exists = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    exists -= {"__init__", "__main__"}
    assert named == exists - {"event_fields"}


def test_the_layout_names_modules_that_exist() -> None:
    """A module that the layout lists behind a package with a colon is in that package."""
    for line in _layout():
        package, _, meaning = (part.strip() for part in line.strip().partition("  "))
        listed = re.findall(r"\b[a-z]+_[a-z_]+\b", meaning.partition(":")[2])
        for module in listed:
            assert (PACKAGE / package / f"{module}.py").exists(), f"{package} has no module {module}"


def test_the_glossary_is_short_and_sorted() -> None:
    """At most 30 terms, in alphabetical order, each once."""
    assert fwguardd.__doc__ is not None
    names = [line[4:25].strip() for line in fwguardd.__doc__.split("Glossary::")[1].splitlines() if line.strip()]
    assert len(names) <= MOST_TERMS
    assert names == sorted(set(names))


KERNEL_LOG = """\
Nov 22 21:14:25 h kernel: [  100.000001] iptables denied: IN=eth0 OUT= MAC=02:00:00:00:00:01:02:00:00:00:00:02:08:00 \
SRC=203.0.113.9 DST=198.51.100.4 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=1 DF PROTO=TCP SPT=47630 DPT=23 WINDOW=64240 \
RES=0x00 SYN URGP=0 \n\
Nov 22 21:14:26 h kernel: [  101.000001] iptables denied: IN=eth0 OUT= MAC=02:00:00:00:00:01:02:00:00:00:00:02:08:00 \
SRC=203.0.113.9 DST=198.51.100.4 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=1 DF PROTO=TCP SPT=47630 DPT=23 WINDOW=64240 \
RES=0x00 SYN URGP=0 \n\
Nov 22 21:15:02 h kernel: [  137.000001] iptables denied: IN=eth0 OUT= MAC=02:00:00:00:00:01:02:00:00:00:00:02:86:dd \
SRC=2001:0db8:0000:0000:0000:0000:0000:0017 DST=2001:0db8:0000:0000:0000:0000:0000:0004 LEN=104 TC=0 HOPLIMIT=64 \
FLOWLBL=1 PROTO=ICMPv6 TYPE=128 CODE=0 ID=1 SEQ=1 \n\
Nov 22 21:15:09 h kernel: [  144.000001] [Output Log] IN= OUT=eth0 SRC=198.51.100.4 DST=192.0.2.77 LEN=60 TOS=0x00 \
PREC=0x00 TTL=64 ID=1 DF PROTO=UDP SPT=41822 DPT=6881 LEN=40 \n\
Nov 22 21:16:00 h kernel: [  195.000001] eth0: link up
"""
"""The log of the example in README.md."""


def test_the_example_of_an_old_log_is_what_the_command_prints(tmp_path: Path) -> None:
    """README.md shows the output of `fwguardctl denials --read` word for word."""
    log = tmp_path / "kern.log"
    log.write_text(KERNEL_LOG, encoding="ascii")
    written = datetime(2026, 11, 22, 21, 20, tzinfo=UTC).timestamp()
    os.utime(log, (written, written))
    settings = tmp_path / "fwguardd.yaml"
    settings.write_text("log: auto\n", encoding="ascii")
    argv: list[str | Path] = [sys.executable, "-m", "fwguardd.ctl.main", "denials", "--config", settings, "--read", log]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=True, cwd=ROOT, env={"TZ": "UTC", "LC_ALL": "C.UTF-8"}
    )
    printed = (done.stdout + done.stderr).replace(str(log), "/var/log/kern.log")
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split("denials --read /var/log/kern.log\n")[1]
    assert printed == textwrap.dedent(shown.split("\n\n")[0]) + "\n", "copy the output into README.md"
