"""Which handle each rule of a look has, so that a rule that the kernel says is gone is known without another look; and
whether a look has all rules.

nf_tables numbers the rules of a table; the number, the handle, stays with a rule. A dump lists the rules of a chain in
the order in which iptables-save prints them. `patched` is pure.
"""

from __future__ import annotations

import errno
from array import array
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.netlink import (
    FAMILY_HEADER,
    HEADER,
    NETLINK_NETFILTER,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    error_number,
    messages,
    open_socket,
    read_attributes,
)
from fwguardd.kernel.nft_tables import list_chains
from fwguardd.kernel.rule_notices import (
    NFPROTOS,
    NFT_MSG_NEWRULE,
    NFTA_RULE_CHAIN,
    NFTA_RULE_HANDLE,
    NFTA_RULE_TABLE,
    Place,
    PolicySet,
    RuleGone,
    TableChanged,
    text_of,
)
from fwguardd.ruleset.model import BUILTIN_CHAINS, POLICIES, Ruleset, Table

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence

    from fwguardd.kernel.rule_notices import Change
    from fwguardd.ruleset.model import Chain, Family, Rule
    from fwguardd.ruleset.save_format import Saved

    Handles = MutableMapping[Place, array[int]]

_NFT_MSG_GETRULE: Final = 0x0A07
_NUMBERS: Final = {family: number for number, family in NFPROTOS.items()}
_LARGEST: Final = 1 << 16
_SECONDS: Final = 1.0
"""The timeout for one answer; the kernel answers at once."""
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
    asked = list(map(_named, places))
    if not 0 < len(asked) <= _MOST_CHAINS:
        asked = [b""]
    with open_socket(NETLINK_NETFILTER) as requester:
        requester.settimeout(_SECONDS)
        for name in asked:
            _dump(requester, family, name, found)
    return found


def _named(place: Place) -> bytes:
    """What asks for the rules of one chain."""
    return _text(NFTA_RULE_TABLE, place.table) + _text(NFTA_RULE_CHAIN, place.chain)


def _text(kind: int, name: str) -> bytes:
    return attribute(kind, name.encode("utf-8", "surrogateescape") + b"\0")


def _dump(requester: socket.socket, family: Family, asked: bytes, found: dict[Place, array[int]]) -> None:
    """Read the handles of all rules of a family, or of the chain that is asked for. Raises OSError."""
    body = FAMILY_HEADER.pack(_NUMBERS[family], 0, 0) + asked
    header = HEADER.pack(HEADER.size + len(body), _NFT_MSG_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
    requester.sendto(header + body, (0, 0))
    while _read_part(requester.recv(_LARGEST), family, found):
        continue


def _read_part(data: bytes, family: Family, found: dict[Place, array[int]]) -> bool:
    """Read a part of a dump; whether more follows. Raises OSError.

    Nearly every rule begins as the one before it, with the same table and chain: only its handle is read then.
    """
    start, numbers = b"no rule yet", array("Q")
    for kind, body in messages(data):
        if kind == NFT_MSG_NEWRULE:
            if not body.startswith(start):
                place = _place(body, family)
                start, numbers = _head(body, place), found.setdefault(place, array("Q"))
            numbers.append(int.from_bytes(body[len(start) : len(start) + 8], "big"))
        elif kind == NLMSG_DONE:
            return False
        elif kind == NLMSG_ERROR:
            raise OSError(error_number(body), "cannot list the rules of nf_tables")
    return True


def _head(body: bytes, place: Place) -> bytes:
    """What precedes the handle of a rule: family, table, chain. Raises OSError where that is in another order."""
    head = body[: FAMILY_HEADER.size] + _named(place) + attribute(NFTA_RULE_HANDLE, bytes(8))[:4]
    if not body.startswith(head):
        raise OSError(errno.EBADMSG, "nf_tables lists the parts of a rule in an unknown order")
    return head


def _place(body: bytes, family: Family) -> Place:
    attributes = read_attributes(body, FAMILY_HEADER.size) or {}
    return Place(family, text_of(attributes, NFTA_RULE_TABLE), text_of(attributes, NFTA_RULE_CHAIN))
