"""Revisions, pending confirmations and held digests as bytes, and back.

A body is one or more lines of JSON. That of a revision has two: its summary, which a list needs, and its content: the
rule files (as text where they are UTF-8, else base64) and the rulesets as they are, with an index into a list of paths
for each origin. Nothing but counters is lost on the way: strings with lone surrogates, which stand for bytes that are
not UTF-8 (PEP 383), come back as they were.

What is read has passed its checksum. Its fields are checked all the same: it may come from another version.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from fwguardd.kernel.iptables import Backend
from fwguardd.ruleset.model import Chain, Family, Origin, Rule, RuleFile, Ruleset, Table
from fwguardd.ruleset.others import OtherRule, RuleOrChain, Standing
from fwguardd.store.model import (
    DamagedError,
    FileChange,
    FileChangeKind,
    HeldFiles,
    PendingConfirmation,
    Revision,
    RevisionKind,
    RevisionSummary,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fwguardd.ruleset.canonical import Owned
    from fwguardd.ruleset.others import Others

REVISION_FORM = "fwguardd revision 1"
PENDING_FORM = "fwguardd pending confirmation 1"
HELD_FORM = "fwguardd held digest 1"
TOUCHED_FORM = "fwguardd touched tables 1"
OTHERS_FORM = "fwguardd rules of other programs 1"


def encode_revision(revision: Revision) -> bytes:
    """The body of a revision's file."""
    paths: dict[str, int] = {}
    rulesets: dict[str, list[object]] = {}
    for family, ruleset in revision.rulesets.items():
        rulesets[family.value] = _plain_ruleset(ruleset, paths)
    content = {
        "files": [_plain_file(file) for file in revision.files],
        "paths": list(paths),
        "rulesets": rulesets,
    }
    return _line(_plain_summary(revision.summary)) + _line(content)


def decode_summary(lead: bytes) -> RevisionSummary:
    """The summary in the first line of a revision's body. Raises DamagedError."""
    fields = _Fields(_read(lead))
    try:
        backend, kind = Backend(fields.text("backend")), RevisionKind(fields.text("kind"))
    except ValueError as error:
        raise _not_understood(str(error)) from error
    return RevisionSummary(
        fields.integer("number"),
        fields.seconds("when"),
        fields.text("cause"),
        fields.text("by"),
        backend,
        fields.text("tool_version"),
        fields.text("kernel"),
        fields.text("digest"),
        kind,
        fields.integer("ipv4_rules"),
        fields.integer("ipv6_rules"),
        fields.integer("file_count"),
        fields.optional_integer("restored"),
        tuple(map(_change, fields.optional_items("changes"))),
    )


def decode_revision(body: bytes) -> Revision:
    """A revision from the body of its file. Raises DamagedError."""
    lead, _, rest = body.partition(b"\n")
    summary = decode_summary(lead)
    content = _Fields(_read(rest))
    paths = tuple(map(_text, content.items("paths")))
    rulesets: dict[Family, Ruleset] = {}
    for name, tables in _Fields(content.value("rulesets")).lists():
        rulesets[_family(name)] = _ruleset(_family(name), tables, paths)
    return Revision(
        summary.number,
        summary.when,
        summary.cause,
        summary.by,
        summary.backend,
        summary.tool_version,
        summary.kernel,
        summary.digest,
        tuple(map(_file, content.items("files"))),
        rulesets,
        summary.kind,
        summary.restored,
        summary.changes,
    )


def encode_pending(pending: PendingConfirmation) -> bytes:
    """The body of the file that holds a pending confirmation."""
    return _line(asdict(pending))


def decode_pending(body: bytes) -> PendingConfirmation:
    """A pending confirmation. Raises DamagedError."""
    fields = _Fields(_read(body))
    return PendingConfirmation(
        fields.integer("number"),
        fields.integer_or_none("back_to"),
        fields.seconds("deadline"),
        fields.text("boot_id"),
        fields.seconds("wall_deadline"),
        fields.text("digest"),
        fields.has("opening") and fields.value("opening") is True,
    )


def encode_held(held: HeldFiles) -> bytes:
    """The body of the file that names held files by their digest."""
    return _line(asdict(held))


def decode_held(body: bytes) -> HeldFiles:
    """Held files. Raises DamagedError."""
    fields = _Fields(_read(body))
    return HeldFiles(fields.text("digest"), fields.text("reason"))


def encode_touched(touched: Owned) -> bytes:
    """The body of the file that names the tables which a write is about to touch for the first time."""
    return _line({"tables": sorted([family.value, name] for family, name in touched)})


def decode_touched(body: bytes) -> Owned:
    """The named tables. Raises DamagedError."""
    tables: set[tuple[Family, str]] = set()
    for item in _Fields(_read(body)).items("tables"):
        pair = _list(item)
        if len(pair) != 2:
            raise _not_understood("a table without a family")
        tables.add((_family(_text(pair[0])), _text(pair[1])))
    return frozenset(tables)


def encode_others(others: Others) -> bytes:
    """The body of the file with the rules of other programs that are remembered."""
    return _line({"rules": [_plain_other(other) for other in others]})


def decode_others(body: bytes) -> Others:
    """Rules of other programs. Raises DamagedError."""
    return tuple(map(_other, _Fields(_read(body)).items("rules")))


def _plain_other(other: OtherRule) -> Mapping[str, object]:
    place = other.place
    return {
        "number": other.number,
        "family": place.family.value,
        "table": place.table,
        "chain": place.chain,
        "text": place.text,
        "who": other.who,
        "when": other.when,
        "standing": other.standing.value,
    }


def _other(value: object) -> OtherRule:
    fields = _Fields(value)
    place = RuleOrChain(
        _family(fields.text("family")), fields.text("table"), fields.text("chain"), fields.text_or_none("text")
    )
    try:
        standing = Standing(fields.text("standing"))
    except ValueError as error:
        raise _not_understood(str(error)) from error
    return OtherRule(fields.integer("number"), place, fields.text("who"), fields.seconds("when"), standing)


def _line(value: object) -> bytes:
    # "surrogatepass" on both ways, with no escapes: "\ud800\udc00" in JSON would come back as one character.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass") + b"\n"


def _read(line: bytes) -> object:
    try:
        value: object = json.loads(line.decode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise _not_understood("a line of it is not JSON") from error
    return value


def _not_understood(what: str) -> DamagedError:
    return DamagedError(f"has a correct checksum, but cannot be understood: {what}")


class _Fields:
    """A JSON object. Every method raises DamagedError for a value that is missing or of another type."""

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise _not_understood(f"expected an object, found {str(value)[:60]!r}")
        self._value: dict[str, object] = value

    def has(self, name: str) -> bool:
        """Whether there is a value of this name."""
        return name in self._value

    def value(self, name: str) -> object:
        """A value of any type."""
        if name not in self._value:
            raise _not_understood(f"{name!r} is missing")
        return self._value[name]

    def text(self, name: str) -> str:
        """A string."""
        return _text(self.value(name))

    def text_or_none(self, name: str) -> str | None:
        """A string or null."""
        if self.value(name) is None:
            return None
        return self.text(name)

    def integer(self, name: str) -> int:
        """A whole number."""
        return _integer(self.value(name))

    def integer_or_none(self, name: str) -> int | None:
        """A whole number or null."""
        if self.value(name) is None:
            return None
        return self.integer(name)

    def optional_integer(self, name: str) -> int | None:
        """A whole number; None for null, and in what an earlier version wrote."""
        if not self.has(name):
            return None
        return self.integer_or_none(name)

    def optional_items(self, name: str) -> list[object]:
        """A list; an empty one in what an earlier version wrote."""
        if not self.has(name):
            return []
        return self.items(name)

    def seconds(self, name: str) -> float:
        """A number of seconds."""
        value = self.value(name)
        if not isinstance(value, (int, float)):
            raise _not_understood(f"expected a number for {name!r}, found {str(value)[:60]!r}")
        return float(value)

    def items(self, name: str) -> list[object]:
        """A list."""
        return _list(self.value(name))

    def lists(self) -> Iterator[tuple[str, list[object]]]:
        """All values, which are lists, with their names."""
        for name, value in self._value.items():
            yield name, _list(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _not_understood(f"expected a string, found {str(value)[:60]!r}")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise _not_understood(f"expected a whole number, found {str(value)[:60]!r}")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise _not_understood(f"expected a list, found {str(value)[:60]!r}")
    return value


def _family(name: str) -> Family:
    try:
        return Family(name)
    except ValueError as error:
        raise _not_understood(str(error)) from error


def _plain_summary(summary: RevisionSummary) -> Mapping[str, object]:
    changes = [[change.name, change.kind.value, change.owner] for change in summary.changes]
    return {**asdict(summary), "backend": summary.backend.value, "kind": summary.kind.value, "changes": changes}


def _change(value: object) -> FileChange:
    parts = [_text(part) for part in _list(value)]
    if len(parts) != 3:
        raise _not_understood("a changed file is not a name, a kind and an owner")
    try:
        return FileChange(parts[0], FileChangeKind(parts[1]), parts[2])
    except ValueError as error:
        raise _not_understood(str(error)) from error


def _plain_file(file: RuleFile) -> Mapping[str, str]:
    try:
        return {"path": file.path, "text": file.data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"path": file.path, "base64": base64.b64encode(file.data).decode("ascii")}


def _file(value: object) -> RuleFile:
    fields = _Fields(value)
    if fields.has("text"):
        return RuleFile(fields.text("path"), fields.text("text").encode("utf-8", "surrogatepass"))
    try:
        return RuleFile(fields.text("path"), base64.b64decode(fields.text("base64"), validate=True))
    except ValueError as error:
        raise _not_understood("a rule file is not base64") from error


def _plain_ruleset(ruleset: Ruleset, paths: dict[str, int]) -> list[object]:
    tables: list[object] = []
    for table in ruleset.tables.values():
        chains = [_plain_chain(chain, paths) for chain in table.chains.values()]
        tables.append({"table": table.name, "chains": chains})
    return tables


def _plain_chain(chain: Chain, paths: dict[str, int]) -> Mapping[str, object]:
    return {
        "chain": chain.name,
        "policy": chain.policy,
        "origin": _plain_origin(chain.origin, paths),
        "rules": [(rule.text, *_plain_origin(rule.origin, paths)) for rule in chain.rules],
    }


def _plain_origin(origin: Origin | None, paths: dict[str, int]) -> tuple[int, ...]:
    if origin is None:
        return ()
    return paths.setdefault(origin.path, len(paths)), origin.line


def _ruleset(family: Family, values: list[object], paths: tuple[str, ...]) -> Ruleset:
    tables: dict[str, Table] = {}
    for value in values:
        table = _table(_Fields(value), paths)
        tables[table.name] = table
    return Ruleset(family, tables)


def _table(fields: _Fields, paths: tuple[str, ...]) -> Table:
    chains: dict[str, Chain] = {}
    for value in fields.items("chains"):
        chain = _chain(_Fields(value), paths)
        chains[chain.name] = chain
    return Table(fields.text("table"), chains)


def _chain(fields: _Fields, paths: tuple[str, ...]) -> Chain:
    rules = tuple(_rule(_list(rule), paths) for rule in fields.items("rules"))
    origin = _origin(fields.items("origin"), paths)
    return Chain(fields.text("chain"), fields.text_or_none("policy"), rules, origin)


def _rule(parts: list[object], paths: tuple[str, ...]) -> Rule:
    if not parts:
        raise _not_understood("a rule without a text")
    return Rule(_text(parts[0]), _origin(parts[1:], paths))


def _origin(parts: list[object], paths: tuple[str, ...]) -> Origin | None:
    if not parts:
        return None
    if len(parts) != 2:
        raise _not_understood("an origin is not a path and a line")
    index, line = _integer(parts[0]), _integer(parts[1])
    if not 0 <= index < len(paths):
        raise _not_understood("an origin names a path that is not listed")
    return Origin(paths[index], line)
