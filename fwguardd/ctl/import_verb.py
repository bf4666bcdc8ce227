"""The verb import: rule files from those of iptables-persistent, ufw and iptables scripts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fwguardd.escaping import printable
from fwguardd.ruleset.importing import import_file
from fwguardd.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fwguardd.ruleset.importing import Imported

_ALL_TAKEN, _SOME_LEFT, _FAILED = 0, 1, 5


def import_files(files: Sequence[Path], output: Path | None) -> int:
    """Write a rule file for each file, and report what was left out. Exit code 1: something was left out."""
    left = 0
    for path in files:
        try:
            imported = import_file(path.name, path.read_text(encoding="utf-8", errors="surrogateescape"))
            _write(imported, output)
        except OSError as error:
            print(f"fwguardctl: {error.filename}: {error.strerror}; nothing was written for {path}", file=sys.stderr)
            return _FAILED
        _report(path, imported)
        left += len(imported.not_taken)
    if left:
        return _SOME_LEFT
    return _ALL_TAKEN


def _write(imported: Imported, output: Path | None) -> None:
    """Write to a new file of the directory, or to standard output. Raises OSError, also where the file exists."""
    if output is None:
        print(f"# save as {printable(imported.name)}")
        print("\n".join(printable(line) for line in imported.text.splitlines()))
        return
    with (output / imported.name).open("x", encoding="utf-8", errors="surrogateescape") as file:
        file.write(imported.text)


def _report(path: Path, imported: Imported) -> None:
    """What was left out, each with its line; on standard error, so that it does not get into the rules."""
    for one in imported.not_taken:
        place = str(path)
        if one.line:
            place = f"{path}:{one.line}"
        print(f"{printable(place)}: not taken over: {one.reason}", file=sys.stderr)
        if one.text:
            print(f"    {printable(one.text)}", file=sys.stderr)
    rules = counted(len(imported.text.splitlines()), "line")
    left = counted(len(imported.not_taken), "line")
    print(f"{printable(str(path))}: {rules} for {printable(imported.name)}, {left} not taken over", file=sys.stderr)
