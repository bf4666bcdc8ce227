"""Which handle each rule of a look has, so that a rule that the kernel says is gone is known without another look; and
whether a look has all rules.

nf_tables numbers the rules of a table; the number, the handle, stays with a rule. A dump lists the rules of a chain in
the order in which iptables-save prints them. `patched` is pure.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.nft_tables import list_chains
from fwguardd.kernel.rule_dumps import handles_in, listed_rules, open_rule_socket, place_of
from fwguardd.kernel.rule_notices import Place, PolicySet, RuleGone, TableChanged
from fwguardd.ruleset.model import BUILTIN_CHAINS, POLICIES, Ruleset, Table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence

    from fwguardd.kernel.rule_notices import Change
    from fwguardd.ruleset.model import Chain, Family, Rule
    from fwguardd.ruleset.save_format import Saved

    Handles = MutableMapping[Place, array[int]]

_MOST_CHAINS: Final = 8
"""Chains that are asked for one by one; of more, the rules of the whole family are."""
_NO_TABLE: Final = Table("", {})


def patched(saved: Saved, changes: Sequence[Change], handles: Handles) -> Saved | None:
    """What a family holds after these changes of it, in order; None if that is not known from them. ``handles`` are
    those of the rules of ``saved``, and then of the result; a place that is not in it is not known."""
    gone: dict[Place, set[int]] = {}
    policies: dict[Place, str] = {}
    for change in changes:
        if isinstance(change, RuleGone):
            gone.setdefault(change.place, set()).add(change.handle)
        elif isinstance(change, PolicySet):
            policies[change.place] = change.policy
        else:
            return None
    if not all(_holds(saved, place, removed, handles) for place, removed in gone.items()):
        return None
    for place, removed in gone.items():
        saved = _without_rules(saved, place, removed, handles)
    return _with_policies(saved, policies)


def gone_texts(saved: Saved, changes: Iterable[Change], handles: Handles) -> Mapping[str, bytes]:
    """The texts of the rules that these changes have removed, which ``saved`` has with these handles, and what each was
    made of: b"" where that is not known, or two of the same text were made of different expressions."""
    gone: dict[Place, dict[int, bytes]] = {}
    for change in changes:
        if isinstance(change, RuleGone):
            gone.setdefault(change.place, {})[change.handle] = change.made_of
    found: dict[str, bytes] = {}
    for place, made_of in gone.items():
        rules = saved.shown.tables[place.table].chains[place.chain].rules
        for handle, rule in zip(handles[place], rules, strict=True):
            if handle in made_of and found.setdefault(rule.text, made_of[handle]) != made_of[handle]:
                found[rule.text] = b""
    return found


def forget(changes: Iterable[Change], handles: Handles) -> None:
    """The handles are not known any more of what was changed."""
    for change in changes:
        if isinstance(change, TableChanged):
            forget_family(change.family, handles)
        else:
            handles.pop(change.place, None)


def forget_family(family: Family, handles: Handles) -> None:
    """The handles are not known any more of any rule of a family."""
    for place in tuple(handles):
        if place.family is family:
            del handles[place]


def _holds(saved: Saved, place: Place, removed: set[int], handles: Handles) -> bool:
    """Whether a chain has rules with these handles, and it is known which of its rules have which handle."""
    chain, numbers = _chain(saved, place), handles.get(place, ())
    return chain is not None and len(numbers) == len(chain.rules) and removed.issubset(numbers)


def _chain(saved: Saved, place: Place) -> Chain | None:
    table = saved.shown.tables.get(place.table, _NO_TABLE)
    return table.chains.get(place.chain)


def _without_rules(saved: Saved, place: Place, removed: set[int], handles: Handles) -> Saved:
    chain = saved.shown.tables[place.table].chains[place.chain]
    numbers = handles[place]
    kept = [at for at, number in enumerate(numbers) if number not in removed]
    handles[place] = array("Q", map(numbers.__getitem__, kept))
    return _with_chain(saved, place, replace(chain, rules=tuple(map(chain.rules.__getitem__, kept))))


def _with_policies(saved: Saved, policies: Mapping[Place, str]) -> Saved | None:
    for place, policy in policies.items():
        chain = _chain(saved, place)
        if chain is None or chain.policy not in POLICIES:
            return None
        saved = _with_chain(saved, place, replace(chain, policy=policy))
    return saved


def _with_chain(saved: Saved, place: Place, chain: Chain) -> Saved:
    tables = dict(saved.shown.tables)
    tables[place.table] = Table(place.table, {**tables[place.table].chains, chain.name: chain})
    return replace(saved, shown=Ruleset(saved.shown.family, tables))


def learn(shown: Ruleset, handles: Handles) -> None:
    """Learn the handles of the rules of the chains that are shown and not known. A chain that has another number of
    rules stays unknown. What was committed meanwhile is not noticed. Raises OSError."""
    rules = _rules(shown)
    unknown = rules.keys() - handles.keys()
    if not unknown:
        return
    for place, numbers in _read(shown.family, unknown).items():
        if len(rules.get(place, ())) == len(numbers):
            handles[place] = numbers


def shows_all(saved: Saved) -> bool:
    """Whether a look has each chain that the kernel lists, with as many rules, but for hidden tables.

    iptables-save also shows built-in chains that are not there. Raises OSError.
    """
    numbers, rules = _read(saved.shown.family, ()), _rules(saved.shown)
    for chain in list_chains(saved.shown.family):
        numbers.setdefault(Place(saved.shown.family, chain.table, chain.name), array("Q"))
    listed = list(filter(partial(_may_be_shown, saved), numbers))
    same = all(place in rules and len(numbers[place]) == len(rules[place]) for place in listed)
    return same and sum(map(len, map(numbers.__getitem__, listed))) == sum(map(len, rules.values()))


def _rules(shown: Ruleset) -> dict[Place, tuple[Rule, ...]]:
    return {Place(shown.family, table.name, chain.name): chain.rules for table, chain in shown.chains()}


def _may_be_shown(saved: Saved, place: Place) -> bool:
    return place.table in BUILTIN_CHAINS and place.table not in saved.hidden


def _read(family: Family, places: Collection[Place]) -> dict[Place, array[int]]:
    """The handles of the rules of these chains, or of all, and perhaps of others. Raises OSError."""
    found = {place: array("Q") for place in places}
    asked = [place_of(place.table, place.chain) for place in places]
    if not 0 < len(asked) <= _MOST_CHAINS:
        asked = [b""]
    with open_rule_socket() as requester:
        for names in asked:
            # Interruptions, which are empty messages, are not looked at.
            listed = handles_in(filter(None, listed_rules(requester, family.number, names)))
            for (table, chain), handles in listed.items():
                found[Place(family, _name(table), _name(chain))] = handles
    return found


def _name(name: bytes) -> str:
    return name.removesuffix(b"\0").decode("utf-8", "surrogateescape")
