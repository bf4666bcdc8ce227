"""Revisions, pending confirmations and held digests as bytes, and back.

A body is one or more lines of JSON. That of a revision has two: its summary, which a list needs, and its content: the
rule files (as text where they are UTF-8, else base64) and the rulesets as they are, with an index into a list of paths
for each origin. Nothing is lost on the way but counters: strings with lone surrogates, which stand for bytes that are
no UTF-8 (PEP 383), come back as they were.

What is read has passed its checksum. It is looked at all the same: it may come from another version.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from fwguardd.kernel.iptables import Backend
from fwguardd.ruleset.model import Chain, Family, Origin, Rule, RuleFile, Ruleset, Table
from fwguardd.store.model import DamagedError, HeldFiles, PendingConfirmation, Revision, RevisionKind, RevisionSummary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fwguardd.store.model import Touched

REVISION_FORM = "fwguardd revision 1"
PENDING_FORM = "fwguardd pending confirmation 1"
HELD_FORM = "fwguardd held digest 1"
TOUCHED_FORM = "fwguardd touched tables 1"


def encode_revision(revision: Revision) -> bytes:
    """The body of a revision's file."""
    paths: dict[str, int] = {}
    rulesets = {family.value: _plain_ruleset(ruleset, paths) for family, ruleset in revision.rulesets.items()}
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
        raise _strange(str(error)) from error
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
    )


def decode_revision(body: bytes) -> Revision:
    """A revision from the body of its file. Raises DamagedError."""
    lead, _, rest = body.partition(b"\n")
    told = decode_summary(lead)
    content = _Fields(_read(rest))
    paths = tuple(_text(path) for path in content.items("paths"))
    rulesets = _Fields(content.value("rulesets"))
    return Revision(
        told.number,
        told.when,
        told.cause,
        told.by,
        told.backend,
        told.tool_version,
        told.kernel,
        told.digest,
        tuple(_file(_Fields(item)) for item in content.items("files")),
        {_family(name): _ruleset(_family(name), rulesets.items(name), paths) for name in rulesets.names()},
        told.kind,
    )


def encode_pending(pending: PendingConfirmation) -> bytes:
    """The body of the file that holds a pending confirmation."""
    return _line(asdict(pending))


def decode_pending(body: bytes) -> PendingConfirmation:
    """A pending confirmation. Raises DamagedError."""
    fields = _Fields(_read(body))
    return PendingConfirmation(
        fields.integer("number"),
        None if fields.value("back_to") is None else fields.integer("back_to"),
        fields.seconds("deadline"),
        fields.text("boot_id"),
        fields.seconds("wall_deadline"),
        fields.text("digest"),
    )


def encode_held(held: HeldFiles) -> bytes:
    """The body of the file that holds a held digest."""
    return _line(asdict(held))


def decode_held(body: bytes) -> HeldFiles:
    """A held digest. Raises DamagedError."""
    fields = _Fields(_read(body))
    return HeldFiles(fields.text("digest"), fields.text("reason"))


def encode_touched(touched: Touched) -> bytes:
    """The body of the file that names tables which a write was about to touch."""
    return _line({"tables": sorted([family.value, name] for family, name in touched)})


def decode_touched(body: bytes) -> Touched:
    """The named tables. Raises DamagedError."""
    pairs = [_list(pair) for pair in _Fields(_read(body)).items("tables")]
    if any(len(pair) != 2 for pair in pairs):
        raise _strange("a table without a family")
    return frozenset((_family(_text(family)), _text(name)) for family, name in pairs)


def _line(value: object) -> bytes:
    # "surrogatepass" on both ways, with no escapes: "\ud800\udc00" in JSON would come back as one character.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass") + b"\n"


def _read(line: bytes) -> object:
    try:
        value: object = json.loads(line.decode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise _strange("a line of it is no JSON") from error
    return value


def _strange(what: str) -> DamagedError:
    return DamagedError(f"is whole, but not understood: {what}")


class _Fields:
    """A JSON object whose values are asked for by name and type."""

    def __init__(self, value: object) -> None:
        if not isinstance(value, dict):
            raise _strange(f"{str(value)[:60]!r} stands where an object should")
        self._value: dict[str, object] = value

    def names(self) -> tuple[str, ...]:
        """Those of all its values."""
        return tuple(self._value)

    def value(self, name: str) -> object:
        """A value of any type. Raises DamagedError where it is missing, as do those below."""
        if name not in self._value:
            raise _strange(f"{name!r} is missing")
        return self._value[name]

    def text(self, name: str) -> str:
        """A text. Raises DamagedError for anything else."""
        return _text(self.value(name))

    def integer(self, name: str) -> int:
        """A whole number. Raises DamagedError for anything else."""
        return _integer(self.value(name))

    def seconds(self, name: str) -> float:
        """A number, of seconds. Raises DamagedError for anything else."""
        value = self.value(name)
        if not isinstance(value, (int, float)):
            raise _strange(f"{name!r} is no number")
        return float(value)

    def items(self, name: str) -> list[object]:
        """A list. Raises DamagedError for anything else."""
        return _list(self.value(name))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _strange(f"{str(value)[:60]!r} stands where a text should")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise _strange(f"{str(value)[:60]!r} stands where a whole number should")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise _strange(f"{str(value)[:60]!r} stands where a list should")
    return value


def _family(name: str) -> Family:
    try:
        return Family(name)
    except ValueError as error:
        raise _strange(str(error)) from error


def _plain_summary(summary: RevisionSummary) -> Mapping[str, object]:
    return {**asdict(summary), "backend": summary.backend.value, "kind": summary.kind.value}


def _plain_file(file: RuleFile) -> Mapping[str, str]:
    try:
        return {"path": file.path, "text": file.data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"path": file.path, "base64": base64.b64encode(file.data).decode("ascii")}


def _file(fields: _Fields) -> RuleFile:
    if "text" in fields.names():
        return RuleFile(fields.text("path"), fields.text("text").encode("utf-8", "surrogatepass"))
    try:
        return RuleFile(fields.text("path"), base64.b64decode(fields.text("base64"), validate=True))
    except ValueError as error:
        raise _strange("a rule file is no base64") from error


def _plain_ruleset(ruleset: Ruleset, paths: dict[str, int]) -> list[object]:
    return [
        {"table": table.name, "chains": [_plain_chain(chain, paths) for chain in table.chains.values()]}
        for table in ruleset.tables.values()
    ]


def _plain_chain(chain: Chain, paths: dict[str, int]) -> Mapping[str, object]:
    return {
        "chain": chain.name,
        "policy": chain.policy,
        "origin": _plain_origin(chain.origin, paths),
        "rules": [[rule.text, *_plain_origin(rule.origin, paths)] for rule in chain.rules],
    }


def _plain_origin(origin: Origin | None, paths: dict[str, int]) -> list[int]:
    return [] if origin is None else [paths.setdefault(origin.path, len(paths)), origin.line]


def _ruleset(family: Family, tables: list[object], paths: tuple[str, ...]) -> Ruleset:
    read = [_table(_Fields(table), paths) for table in tables]
    return Ruleset(family, {table.name: table for table in read})


def _table(fields: _Fields, paths: tuple[str, ...]) -> Table:
    chains = [_chain(_Fields(chain), paths) for chain in fields.items("chains")]
    return Table(fields.text("table"), {chain.name: chain for chain in chains})


def _chain(fields: _Fields, paths: tuple[str, ...]) -> Chain:
    policy = None if fields.value("policy") is None else fields.text("policy")
    rules = tuple(_rule(_list(rule), paths) for rule in fields.items("rules"))
    return Chain(fields.text("chain"), policy, rules, _origin(fields.items("origin"), paths))


def _rule(parts: list[object], paths: tuple[str, ...]) -> Rule:
    return Rule(_text(parts[0] if parts else None), _origin(parts[1:], paths))


def _origin(parts: list[object], paths: tuple[str, ...]) -> Origin | None:
    if not parts:
        return None
    index, line = (_integer(part) for part in parts) if len(parts) == 2 else (-1, 0)
    if not 0 <= index < len(paths):
        raise _strange("an origin leads to no path")
    return Origin(paths[index], line)
