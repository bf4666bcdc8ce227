"""The verb import: rule files from those of iptables-persistent, ufw and iptables scripts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd.ctl.verb_options import describe
from fwguardd.escaping import printable
from fwguardd.ruleset.importing import import_file
from fwguardd.wording import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from fwguardd.ruleset.importing import Imported

_ALL_TAKEN, _SOME_LEFT, _FAILED = 0, 1, 5


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help, the option and the operands."""
    description = (
        "Write rule files from rules.v4 and rules.v6 of iptables-persistent, user.rules of ufw, and shell scripts that "
        "run iptables. No script is run. Lines that cannot be taken over are reported with the reason."
    )
    examples = (
        ("fwguardctl import -o draft /etc/iptables/rules.v4 /etc/iptables/rules.v6", ""),
        ("fwguardctl import firewall.sh", "print the rule file"),
    )
    describe(parser, description, examples)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="write the rule files there; without it, to standard output"
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a saved ruleset or a script")


def run(options: argparse.Namespace) -> int:
    """Import the files that the command line names; the exit code."""
    return import_files(options.files, options.output)


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
