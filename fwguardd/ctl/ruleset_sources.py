"""The rulesets that packets are sent through: those in force, or what the kernel would hold after a reload.

Rules in force have the origins of the rule files of the revision in force, which the daemon knows; without the daemon,
those of the rules directory. A rule that no file has belongs to another program.
"""

from __future__ import annotations

from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd.control.client import ControlNotPermittedError, DaemonUnreachableError, RequestRefusedError, ask
from fwguardd.ctl.offline_verbs import snapshot_of, validated_snapshot
from fwguardd.enforce.look import look_at
from fwguardd.enforce.rule_files import Snapshot
from fwguardd.enforce.set_reading import set_files_in
from fwguardd.enforce.validate import Invalid, Valid
from fwguardd.kernel.iptables import IptablesNotPermittedError, LiveKernel, find_tool
from fwguardd.kernel.other_tables import other_tables
from fwguardd.kernel.privilege import CAP_NET_ADMIN, has_capability
from fwguardd.kernel.set_file_copies import copies_of_files
from fwguardd.ruleset.after_plan import after_plan
from fwguardd.ruleset.model import FAMILIES, NO_FINDINGS, RuleFile
from fwguardd.ruleset.operations import Plan
from fwguardd.ruleset.set_names import names_of_sets
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwguardd.ctl.offline_verbs import OfflineInput
    from fwguardd.kernel.ipset_copies import Copy
    from fwguardd.kernel.iptables import Tool
    from fwguardd.ruleset.model import Family, Ruleset
    from fwguardd.ruleset.set_files import SetFile

    Rulesets = Mapping[Family, Ruleset]


@dataclass(frozen=True, slots=True)
class RulesetSource:
    """Rulesets of both families, what they are called in messages, and the iptables that loads them.

    ``notes`` are facts that limit what an answer is worth; ``sets`` those of the set files beside the rules.
    """

    rulesets: Rulesets
    name: str
    tool: Tool
    notes: tuple[str, ...] = ()
    sets: Mapping[str, Copy] = field(default_factory=dict)


def may_read_kernel() -> bool:
    """Whether this process may read the rules in force."""
    return has_capability(CAP_NET_ADMIN)


def rules_in_force(source: OfflineInput, socket: Path) -> RulesetSource:
    """The rules in force, those of other programs too. Raises IptablesNotPermittedError and KernelError."""
    if not may_read_kernel():
        raise IptablesNotPermittedError("only root may read the rules in force; run it as root")
    tool = find_tool(source.backend)
    saved = LiveKernel(tool.backend).look(FAMILIES)
    rulesets = {family: one.shown for family, one in saved.items()}
    known = _known_rulesets(source, socket)
    notes = (*_hidden_notes(saved), *_notes_of_others(tool))
    return RulesetSource(_with_origins(rulesets, known), "the rules in force", tool, notes)


def _notes_of_others(tool: Tool) -> tuple[str, ...]:
    """The rules outside of the tables of iptables, which packets of this host meet too."""
    try:
        tables = other_tables(tool.backend)
    except OSError:
        return ("whether there are rules outside of the tables of iptables could not be read",)
    return tuple(f"{table} is not a table of iptables and is left out: {table.effect}" for table in tables)


def _hidden_notes(saved: Mapping[Family, Any]) -> tuple[str, ...]:
    notes: list[str] = []
    for family, one in saved.items():
        for name in sorted(one.hidden):
            place = f"table {family.nft_name} {name}"
            notes.append(f"{place} holds rules that iptables cannot show; they are left out (nft list {place})")
    return tuple(notes)


def _with_origins(rulesets: Rulesets, known: Rulesets) -> dict[Family, Ruleset]:
    """The rulesets with the origins of the same rules in others: what a plan without operations leads to."""
    found = dict(rulesets)
    for family, ruleset in known.items():
        found[family] = after_plan(rulesets[family], Plan(family, ()), ruleset)
    return found


def _known_rulesets(source: OfflineInput, socket: Path) -> Rulesets:
    """What the files of the revision in force make, with origins; nothing where they cannot be had."""
    result, _ = validated_snapshot(_files_in_force(source, socket), source)
    if isinstance(result, Valid):
        return result.rehearsed.rulesets
    return {}


def _files_in_force(source: OfflineInput, socket: Path) -> Snapshot:
    """The rule files of the revision in force; without the daemon, those of the rules directory."""
    try:
        status = ask(socket, "status")
        directory = Path(status["rules_dir"])
        shown = ask(socket, "show", {"revision": int(status["in_force"]["revision"])})
        files = tuple(RuleFile(file["path"], _bytes_of(file["text"])) for file in shown["files"])
    except (DaemonUnreachableError, ControlNotPermittedError, RequestRefusedError, KeyError, TypeError):
        return snapshot_of(source.paths, source.rules_dir)
    # A revision has no set files, but its rules may name the sets of those in the directory.
    sets = names_of_sets(path.name for path in set_files_in(directory) or ())
    return Snapshot(directory, files, NO_FINDINGS, "", sets=sets)


def _bytes_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def rules_after_reload(source: OfflineInput, *, of_this_host: bool = True) -> RulesetSource | Invalid:
    """What the kernel would hold after a reload of the rule files; what keeps them from being loaded.

    Without root, and for another host, it is the ruleset of the files alone. Raises NamespaceError and KernelError.
    """
    result, tool = validated_snapshot(snapshot_of(source.paths, source.rules_dir), source)
    if isinstance(result, Invalid):
        return result
    name, sets = f"the rules of {source.paths[0]}", copies_of_files(result.sets)
    if not of_this_host:
        return RulesetSource(result.rehearsed.rulesets, name, tool, sets=sets)
    if not may_read_kernel():
        notes = ("rules of other programs are left out, because only root may read the rules in force",)
        return RulesetSource(result.rehearsed.rulesets, name, tool, notes, sets)
    return RulesetSource(change_of(result, tool, source).after, name, tool, sets=sets)


@dataclass(frozen=True, slots=True)
class RulesetChange:
    """The rulesets that the kernel holds, and those that it would hold after a reload, with origins. ``sets`` are those
    of the set files after it."""

    before: Rulesets
    after: Rulesets
    sets: Mapping[str, Copy]


def change_of(result: Valid, tool: Tool, source: OfflineInput) -> RulesetChange:
    """What a reload of files would change that were validated. Raises KernelError."""
    return change_to(result.rehearsed.rulesets, result.sets, tool, source)


def change_to(wanted: Rulesets, sets: Iterable[SetFile], tool: Tool, source: OfflineInput) -> RulesetChange:
    """What loading these rulesets would change. Raises KernelError."""
    look = look_at(LiveKernel(tool.backend), wanted, source.context.preserve)
    after = _with_origins(look.live, wanted)
    for plan in look.plans():
        after[plan.family] = after_plan(look.live[plan.family], plan, wanted[plan.family])
    return RulesetChange(look.live, after, copies_of_files(sets))


def with_paths(source: OfflineInput, directory: Path) -> OfflineInput:
    """The same for another directory."""
    return replace(source, paths=(directory,))
