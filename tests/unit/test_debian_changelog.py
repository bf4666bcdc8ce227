"""The changelog of the Debian package is generated from packaging/CHANGELOG.md."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fwguardd import __version__

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
WRITTEN = datetime(2026, 11, 22, 12, tzinfo=UTC)
TWO_VERSIONS = """# Changes

## 0.2.0 (unreleased)

- A bullet that goes on
  in a second line.
- Another.

## 0.1.0 (2026-12-01)

- The first.
"""


def _debian_changelog(text: str, version: str) -> str:
    spec = importlib.util.spec_from_file_location("changelog", PACKAGING / "debian" / "changelog.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: str = module.debian_changelog(text, version, WRITTEN)
    return made


def test_each_version_is_an_entry() -> None:
    """Version, distribution, bullets, and a date: that of the release, or of the file before there is one."""
    made = _debian_changelog(TWO_VERSIONS, "0.2.0")
    assert re.findall(r"^fwguardd .*", made, re.MULTILINE) == [
        "fwguardd (0.2.0) UNRELEASED; urgency=medium",
        "fwguardd (0.1.0) unstable; urgency=medium",
    ]
    assert "  * A bullet that goes on in a second line.\n  * Another.\n" in made
    assert re.findall(r"  (\w{3}, .*)$", made, re.MULTILINE) == [
        "Sun, 22 Nov 2026 12:00:00 +0000",
        "Tue, 01 Dec 2026 00:00:00 +0000",
    ]


@pytest.mark.parametrize(
    ("text", "version"), [(TWO_VERSIONS, "0.1.0"), ("# Changes\n", "0.1.0"), ("## 0.1.0 (unreleased)\n", "0.1.0")]
)
def test_a_version_without_an_entry_is_refused(text: str, version: str) -> None:
    """A package is not built with the changelog of another version, or with none."""
    with pytest.raises(ValueError, match=r"changelog (does not begin|has no entry)"):
        _debian_changelog(text, version)


def test_dpkg_reads_it(tmp_path: Path) -> None:
    """The changelog as it is now goes with the version as it is now, and dpkg has nothing to say about it."""
    made = subprocess.run(
        [sys.executable, "-B", PACKAGING / "debian" / "changelog.py", __version__, PACKAGING / "CHANGELOG.md"],
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / "changelog").write_text(made.stdout, encoding="utf-8")
    read = subprocess.run(
        ["dpkg-parsechangelog", "-l", tmp_path / "changelog", "-S", "Version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (read.stdout, read.stderr) == (f"{__version__}\n", "")
    assert max(len(line) for line in made.stdout.splitlines() if not line.startswith(" -- ")) <= 80
