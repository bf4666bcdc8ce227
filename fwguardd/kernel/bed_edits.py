"""Edits of the chains of a bed as JSON values, for the worker in it: the rules that stay, as ranges, and what the new
ones are made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fwguardd.kernel.nft_batches import ChainChange
from fwguardd.kernel.rule_notices import Place
from fwguardd.ruleset.chain_edits import ChainEdit, NoEditError, chain_edits
from fwguardd.ruleset.model import Family, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fwguardd.kernel.rehearsed_rules import RehearsedRules
    from fwguardd.ruleset.model import Ruleset
    from fwguardd.ruleset.operations import Plan

    Pieces = list[list[int] | str]
    EditDocument = tuple[int, str, str, Pieces, tuple[int, int]]
    """Family, table, chain; ranges of rules that stay, and new rules; how many rules the chain has before and after."""

MOST_CHANGES: Final = 128
"""Rules that come or go in an edit. The answers to it, 400 bytes each, have to fit into a buffer that is not enlarged,
since the kernel enlarges none in a user namespace."""

_NEW: Final = Rule("")
_FAMILIES: Final = {family.number: family for family in Family}


def edit_document(family: Family, edit: ChainEdit, expressions: Iterable[bytes]) -> EditDocument:
    """An edit of one chain. ``expressions`` are those of the new rules, in order."""
    after = len(edit.final)
    lengths = after - len(edit.added) + len(edit.removed), after
    return family.number, edit.table, edit.chain, _pieces(edit, expressions), lengths


def edit_documents(
    plans: Iterable[Plan], loaded: Mapping[Family, Ruleset], rehearsed: RehearsedRules
) -> list[EditDocument]:
    """What plans do to the chains that are loaded. Raises NoEditError where iptables has to do it."""
    documents: list[EditDocument] = []
    changes = 0
    for plan in plans:
        changes += len(plan.operations)
        for edit in chain_edits(plan, loaded[plan.family]):
            expressions = [rehearsed.expressions(plan.family, rule.text) for rule in edit.added]
            if not all(expressions):
                raise NoEditError
            documents.append(edit_document(plan.family, edit, expressions))
    if changes > MOST_CHANGES:
        raise NoEditError
    return documents


def _pieces(edit: ChainEdit, expressions: Iterable[bytes]) -> Pieces:
    new = iter(expressions)
    pieces: Pieces = []
    stay: list[int] | None = None
    for each in edit.final:
        if isinstance(each, Rule):
            pieces.append(next(new).hex())
            stay = None
        elif stay is not None and stay[1] == each:
            stay[1] += 1
        else:
            stay = [each, each + 1]
            pieces.append(stay)
    return pieces


def change_of(document: EditDocument, handles: Sequence[int]) -> ChainChange | None:
    """The change of a chain whose rules have these handles; None where the edit has another number of rules."""
    number, table, chain, pieces, lengths = document
    final: list[int | Rule] = []
    expressions: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, str):
            final.append(_NEW)
            expressions.append(bytes.fromhex(piece))
        else:
            final += range(*piece)
    if tuple(lengths) != (len(handles), len(final)):
        return None
    removed = sorted(set(range(len(handles))).difference(final))
    edit = ChainEdit(table, chain, tuple(final), tuple(removed))
    return ChainChange(Place(_FAMILIES[number], table, chain), edit, handles, expressions)
