"""The verb minimise: print or write rule files without the lines that change nothing, proved for all packets."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fwguardd.ctl.offline_verbs import (
    ANSWER_IS_NO,
    DONE,
    OfflineInput,
    diff_document,
    input_of,
    print_findings,
    snapshot_of,
    validated_snapshot,
)
from fwguardd.ctl.terminal import Painter
from fwguardd.ctl.verb_options import add_rules, describe
from fwguardd.enforce.validate import Invalid, Valid
from fwguardd.errors import ReportedError
from fwguardd.kernel.z3_solver import Solver
from fwguardd.proof.shorter import Shortening, rules_by_line, text_without
from fwguardd.ruleset.model import RuleFile
from fwguardd.values import dataclass
from fwguardd.wording import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from fwguardd.enforce.rule_files import Snapshot
    from fwguardd.kernel.iptables import Tool

SECONDS: Final = 300.0
"""The longest that the solver is asked."""


class NotEqualError(ReportedError):
    """The shortened files are not what was proved."""


@dataclass(frozen=True, slots=True)
class Minimised:
    """What a search found: the lines that can go, by place, and the texts of the files without them."""

    removed: Mapping[str, str]
    texts: Mapping[str, str]
    lines: int
    left_out: str

    @property
    def sentence(self) -> str:
        """The result in a line."""
        if not self.removed:
            return "no line with a rule can be taken out"
        words = f"{len(self.removed)} of {counted(self.lines, 'line')} with rules can be taken out"
        return f"{words}: every packet is treated as before, proved with z3 and rehearsed"

    def document(self) -> dict[str, Any]:
        """It as JSON values."""
        removed = [{"at": place, "text": text} for place, text in self.removed.items()]
        return {
            "ok": True,
            "removed": removed,
            "lines": self.lines,
            "left_out": self.left_out,
            "files": dict(self.texts),
        }


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help, the options and the operands."""
    description = (
        "Find the lines of rule files without which every packet is treated as before: accepted, dropped, rejected, "
        "translated, logged, marked and counted by matches such as a limit. This is a proof for all packets, with z3. "
        "Print the difference; with --write, write the files. Comments and policies stay. Exit code: 0 done; 1 the "
        "files have errors."
    )
    examples = (
        ("fwguardctl minimise", "what could go from the rule files of the daemon"),
        ("fwguardctl minimise --write ./rules", "shorten a draft"),
    )
    describe(parser, description, examples)
    add_rules(parser)
    parser.add_argument("--write", action="store_true", help="write the shortened files in place of the old ones")
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="a directory, or rule files")


def run(options: argparse.Namespace) -> int:
    """Shorten what the command line names; the exit code. Raises ReportedError."""
    source = input_of(options)
    snapshot = snapshot_of(source.paths, source.rules_dir)
    result, tool = validated_snapshot(snapshot, source)
    if isinstance(result, Invalid):
        _print_invalid(result, tool, source)
        return ANSWER_IS_NO
    with Solver(time.monotonic() + SECONDS) as solver:
        search = Shortening(result.rehearsed.rulesets, result.sets, solver)
        search.run()
        found = _found(search, result, snapshot)
        if found.removed:
            _check(search, _shortened(snapshot, found), source)
    _print(found, snapshot, source)
    if options.write:
        _write(found)
    return DONE


def _print_invalid(result: Invalid, tool: Tool, source: OfflineInput) -> None:
    if source.json:
        print(json.dumps(diff_document(result.findings, (), ok=False)))
    else:
        print_findings(result, tool, Painter())


def _found(search: Shortening, result: Valid, snapshot: Snapshot) -> Minimised:
    removed: dict[str, str] = {}
    texts: dict[str, str] = {}
    for file in snapshot.files:
        lines = [origin for origin in sorted(search.removed) if origin.path == file.path]
        text = file.data.decode("utf-8", "surrogateescape")
        written = text.split("\n")
        for origin in lines:
            removed[str(origin)] = written[origin.line - 1].strip()
        if lines:
            texts[file.path] = text_without(text, lines)
    return Minimised(removed, texts, len(rules_by_line(result.rehearsed.rulesets)), search.left_out)


def _shortened(snapshot: Snapshot, found: Minimised) -> Snapshot:
    """The snapshot with the shortened files."""
    files = [_with_text(file, found.texts) for file in snapshot.files]
    return replace(snapshot, files=tuple(files))


def _with_text(file: RuleFile, texts: Mapping[str, str]) -> RuleFile:
    if file.path not in texts:
        return file
    return RuleFile(file.path, texts[file.path].encode("utf-8", "surrogateescape"))


def _check(search: Shortening, shortened: Snapshot, source: OfflineInput) -> None:
    """Rehearse the shortened files, and prove that the kernel made of them what was asked for. Raises NotEqualError."""
    result, _tool = validated_snapshot(shortened, source)
    if isinstance(result, Invalid):
        raise NotEqualError(f"the shortened files would be refused, so nothing is changed: {result.findings.errors[0]}")
    if not search.is_equal(result.rehearsed.rulesets):
        raise NotEqualError("the shortened files are not proved to be equal, so nothing is changed")


def _print(found: Minimised, snapshot: Snapshot, source: OfflineInput) -> None:
    if source.json:
        print(json.dumps(found.document()))
        return
    for file in snapshot.files:
        if file.path in found.texts:
            for line in _difference(file, found.texts[file.path]):
                print(line)
    if found.left_out:
        print(Painter().fit(f"note: not all lines were tried: {found.left_out}"))
    print(Painter().fit(found.sentence))


def _difference(file: RuleFile, text: str) -> Iterator[str]:
    before = file.data.decode("utf-8", "replace").splitlines()
    yield from difflib.unified_diff(before, text.splitlines(), file.path, file.path, lineterm="", n=1)


def _write(found: Minimised) -> None:
    """Put each file in its place, whole. Raises NotEqualError."""
    for path, text in found.texts.items():
        try:
            _replace(Path(path), text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise NotEqualError(
                f"{path} cannot be written: {error.strerror}; the other files are not written"
            ) from error
        print(f"written: {path}", file=sys.stderr)


def _replace(path: Path, data: bytes) -> None:
    """Write a file beside the old one, with its mode and owner, and put it in its place."""
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, name)
        status = path.stat()
        os.chown(name, status.st_uid, status.st_gid)
        os.replace(name, path)  # noqa: PTH105 - as above.
    except OSError:
        os.unlink(name)  # noqa: PTH108 - as above.
        raise
