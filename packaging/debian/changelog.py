"""Convert packaging/CHANGELOG.md to a Debian changelog, on standard output: changes are written down in one place only.

    changelog.py VERSION CHANGELOG.md

The newest section must be that of VERSION. Each section has a date, as in "## 1.2.3 (2026-11-22)"; the newest may say
"(unreleased)" instead until it is released: its date is then the modification time of the file, so that builds are
reproducible.
"""

from __future__ import annotations

import re
import sys
import textwrap
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

MAINTAINER = "fwguardd maintainers <maintainers@fwguardd.example>"
SECTION = re.compile(r"^## (?P<version>\S+) \((?P<when>unreleased|\d{4}-\d\d-\d\d)\)\n", re.MULTILINE)


def debian_changelog(text: str, version: str, written: datetime) -> str:
    """The whole changelog. Raises ValueError if the newest section is not that of the version, or is empty."""
    headings = list(SECTION.finditer(text))
    if not headings or headings[0]["version"] != version:
        raise ValueError(f'the changelog does not begin with "## {version} (unreleased)", or a date in place of that')
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    entries = (entry(found, text[found.end() : end], written) for found, end in zip(headings, ends, strict=True))
    return "\n".join(entries)


def entry(heading: re.Match[str], body: str, written: datetime) -> str:
    """One version's entry, in the form of deb-changelog(5)."""
    unreleased = heading["when"] == "unreleased"
    when = written if unreleased else datetime.fromisoformat(heading["when"]).replace(tzinfo=UTC)
    bullets = [" ".join(bullet.split()) for bullet in re.split(r"^- ", body, flags=re.MULTILINE)[1:]]
    if not bullets:
        raise ValueError(f"the changelog has no entry for version {heading['version']}")
    lines = [textwrap.fill(text, 78, initial_indent="  * ", subsequent_indent="    ") for text in bullets]
    head = f"fwguardd ({heading['version']}) {'UNRELEASED' if unreleased else 'unstable'}; urgency=medium"
    return "\n".join([head, "", *lines, "", f" -- {MAINTAINER}  {format_datetime(when)}", ""])


def main() -> int:
    """Print the Debian changelog. Returns the exit code."""
    version, path = sys.argv[1], Path(sys.argv[2])
    written = datetime.fromtimestamp(int(path.stat().st_mtime), tz=UTC)
    try:
        sys.stdout.write(debian_changelog(path.read_text(encoding="utf-8"), version, written))
    except ValueError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
