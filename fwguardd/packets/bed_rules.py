"""What a bed loads in place of a ruleset, so that packets show what its rules do, and nothing else happens.

- Targets that only report or copy a packet, such as LOG and TEE, are left out: nothing leaves the bed.
- Limits (``limit``, ``hashlimit``, ``connlimit``) and lists of addresses (``recent``) are taken as a first packet finds
  them: no limit is reached, no address is in a list. Otherwise one packet would change the answer for the next one.
- Where packets cannot be sent as another user, the match ``owner`` is replaced by its answer for that user.
- A match whose value a bed does not have, such as ``time``, ``cgroup`` or ``mac``, decides nothing. Before its rule
  stands a copy without this match and without the target: a packet that matches the copy might match the rule, so what
  becomes of it is not decided here (`Undecided`).

A `BedRules` knows for each rule of the bed which rule of the ruleset it stands for.

This module is pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from fwguardd.patterns import pattern
from fwguardd.ruleset.model import Chain, Rule, Ruleset, Table, texts_of
from fwguardd.ruleset.rule_variants import parts_of
from fwguardd.ruleset.rule_view import RuleView, target_of
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fwguardd.ruleset.rule_variants import Part
    from fwguardd.ruleset.rule_view import Option

ONLY_REPORT: Final = frozenset(
    {"LOG", "NFLOG", "ULOG", "TRACE", "TEE", "AUDIT", "LED", "IDLETIMER", "RATEEST", "SECMARK", "CONNSECMARK"}
)
"""Targets that change neither the packet nor what becomes of it, as far as rules can match it."""

_DECIDED: Final = frozenset(
    {"tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "icmpv6", "conntrack", "state", "multiport", "comment"}
    | {"mark", "connmark", "addrtype", "iprange", "owner", "pkttype", "rpfilter", "nfacct", "set", "cluster"}
    | {"frag", "rt", "hbh", "dst", "mh", "ipv6header", "limit", "hashlimit", "connlimit", "recent"}
)
"""Match extensions for which a bed has what they read, or an assumption that the docstring names."""

_OF_A_CONNECTION: Final = frozenset({"connmark"})
"""Those whose value a bed has for the first packet of a connection only."""

_MATCH: Final = pattern(r"-m ([^ ]+)")
_REPLACED_TARGET: Final = pattern(rf"-j (?:{'|'.join(sorted(ONLY_REPORT))})\b")
_ORDINARY: Final = _DECIDED - {"limit", "hashlimit", "connlimit", "recent", "connmark", "set", "owner"}
_OWNER_OPTIONS: Final = ("--uid-owner", "--gid-owner", "--socket-exists")
_NUMBER: Final = pattern(r"--connlimit-(?:upto|above) ([0-9]+)")


@dataclass(frozen=True, slots=True)
class Stand:
    """What a rule of the bed stands for: the rule at this position, or, with ``match``, the question whether that rule
    matches. ``match`` is the one to blame, as in "-m time". ``first_is_decided`` means that it is decided for a new
    connection."""

    position: int
    match: str = ""
    first_is_decided: bool = False


@dataclass(frozen=True, slots=True)
class BedRules:
    """The ruleset that is proved, and the one that a bed loads for it. ``stands`` has the chains, by table and name, in
    which they differ in number or order."""

    proved: Ruleset
    loaded: Ruleset
    stands: Mapping[tuple[str, str], Sequence[Stand]]

    def stand(self, table: str, chain: str, position: int) -> Stand:
        """What the rule at this position of the bed stands for."""
        stands = self.stands.get((table, chain))
        if stands is None:
            return Stand(position)
        return stands[position - 1]

    def rule(self, table: str, chain: str, position: int) -> Rule | None:
        """The rule at this position of the ruleset; None if there is none."""
        rules = _chain_of(self.proved, table, chain).rules
        if not 0 < position <= len(rules):
            return None
        return rules[position - 1]

    def length(self, table: str, chain: str) -> int:
        """How many rules the bed has in a chain."""
        return len(_chain_of(self.loaded, table, chain).rules)

    def policy(self, table: str, chain: str) -> str:
        """The policy of a built-in chain of the ruleset, where a fresh kernel has it."""
        return _chain_of(self.proved, table, chain).policy_after("ACCEPT") or "ACCEPT"

    def has_chain(self, table: str, chain: str) -> bool:
        """Whether the ruleset has this chain."""
        return table in self.proved.tables and chain in self.proved.tables[table].chains


def _chain_of(ruleset: Ruleset, table: str, chain: str) -> Chain:
    """A chain of a ruleset; an empty one if it has none of this name."""
    known = ruleset.tables.get(table, Table(table, {}))
    return known.chains.get(chain, Chain(chain, None))


class Owner(NamedTuple):
    """The user and the group of the process that sends a packet."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class _Known:
    """What decides matches: the ipsets that a bed has the entries of, and the owner whose packets are sent."""

    sets: frozenset[str]
    owner: Owner | None


def bed_rules(ruleset: Ruleset, copied_sets: Iterable[str] = (), owner: Owner | None = None) -> BedRules:
    """What a bed loads for a ruleset. ``copied_sets`` are the ipsets whose entries the bed has. With an ``owner``, the
    match of this name is replaced by its answer for packets of that user; None lets the kernel answer."""
    known = _Known(frozenset(copied_sets), owner)
    stands: dict[tuple[str, str], Sequence[Stand]] = {}
    tables: dict[str, Table] = {}
    for table in ruleset.tables.values():
        chains: dict[str, Chain] = {}
        for chain in table.chains.values():
            chains[chain.name] = chain
            if _is_special(" ".join(texts_of(chain.rules))):
                rules, places = _chain(chain, known)
                chains[chain.name] = replace(chain, rules=rules)
                stands[table.name, chain.name] = places
        tables[table.name] = Table(table.name, chains)
    return BedRules(ruleset, Ruleset(ruleset.family, tables), stands)


def translates_addresses(ruleset: Ruleset) -> bool:
    """Whether packets of an established connection may have other addresses than at its start: rules have NAT."""
    table = ruleset.tables.get("nat")
    if table is None:
        return False
    return any(chain.rules for chain in table.chains.values())


def _is_special(text: str) -> bool:
    """Whether a rule, or one of several, may have a part that a bed replaces.

    A comment can look like one; then nothing is replaced.
    """
    if _REPLACED_TARGET.search(text):
        return True
    return not _ORDINARY.issuperset(_MATCH.findall(text))


def _chain(chain: Chain, known: _Known) -> tuple[tuple[Rule, ...], list[Stand]]:
    rules: list[Rule] = []
    places: list[Stand] = []
    for position, rule in enumerate(chain.rules, 1):
        for text, stand in _replaced(rule.text, position, known):
            rules.append(replace(rule, text=text))
            places.append(stand)
    return tuple(rules), places


def _replaced(text: str, position: int, known: _Known) -> Iterator[tuple[str, Stand]]:
    """The rules of the bed for this one: none if no first packet matches it."""
    if not _is_special(text):
        yield text, Stand(position)
        return
    parts = _without_decided(text, known.owner)
    if any(_never_matches(part, known.owner) for part in parts):
        return
    doubtful = _doubtful(parts, known.sets)
    if doubtful and _may_matter(text):
        first_is_decided = _OF_A_CONNECTION.issuperset(part.name for part in doubtful)
        yield _condition(parts, doubtful), Stand(position, shown_match(doubtful[0]), first_is_decided)
    yield _without_report(parts), Stand(position)


def _without_decided(text: str, owner: Owner | None) -> list[Part]:
    """The parts of a rule without the matches that hold for every packet."""
    return [part for part in parts_of(text) if not _always_matches(part, owner)]


def _doubtful(parts: Iterable[Part], sets: frozenset[str]) -> list[Part]:
    return [part for part in parts if _is_doubtful(part, sets)]


def _may_matter(text: str) -> bool:
    """Whether the rule changes what becomes of a packet."""
    target = target_of(text)
    return target is not None and target not in ONLY_REPORT


def _condition(parts: Iterable[Part], doubtful: Sequence[Part]) -> str:
    """The other matches of a rule."""
    return " ".join(part.text for part in parts if not part.is_target and part not in doubtful)


def _without_report(parts: Iterable[Part]) -> str:
    return " ".join(part.text for part in parts if not (part.is_target and part.name in ONLY_REPORT))


def shown_match(part: Part) -> str:
    """A match for a message: with the name of the set, if it is one."""
    if part.name == "set":
        return f"-m set {part.text.partition('--match-set ')[2].partition(' ')[0]}"
    return f"-m {part.name}"


def _is_match(part: Part) -> bool:
    return bool(part.name) and not part.is_target and part.text.startswith(("-m ", "--match "))


def _is_doubtful(part: Part, sets: frozenset[str]) -> bool:
    """Whether a bed does not have what this match reads."""
    if not _is_match(part):
        return False
    if part.name == "set":
        return part.text.partition("--match-set ")[2].partition(" ")[0] not in sets
    return part.name not in _DECIDED or part.name in _OF_A_CONNECTION


def _always_matches(part: Part, owner: Owner | None) -> bool:
    """Whether every first packet matches: a limit that is not reached, an entry in a list of addresses."""
    match part.name:
        case "limit":
            return True
        case "hashlimit":
            return "--hashlimit-above" not in part.text
        case "connlimit":
            return _allows_first(part) != ("--connlimit-above" in part.text)
        case "owner":
            return owner is not None and _is_owner(part, owner)
        case "recent":
            return ("--set" in part.text) != ("!" in part.text.split())
    return False


def _never_matches(part: Part, owner: Owner | None) -> bool:
    """Whether no first packet matches. Those that always match have been left out."""
    if part.name == "owner":
        return owner is not None
    return _is_match(part) and part.name in ("hashlimit", "connlimit", "recent")


def _is_owner(part: Part, owner: Owner) -> bool:
    """Whether this match ``owner`` holds for a packet of this user. An option that is not known does not hold."""
    for option in RuleView.of(part.text).options:
        if option.name in _OWNER_OPTIONS and _holds(option, owner) == option.negated:
            return False
    return True


def _holds(option: Option, owner: Owner) -> bool:
    if option.name == "--socket-exists":
        return True
    first, _, last = option.value.partition("-")
    number = {"--uid-owner": owner.uid, "--gid-owner": owner.gid}[option.name]
    return int(first) <= number <= int(last or first)


def _allows_first(part: Part) -> bool:
    """Whether the limit of connections allows a first one."""
    found = _NUMBER.search(part.text)
    return found is None or int(found[1]) > 0
