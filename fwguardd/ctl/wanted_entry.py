"""What allow, deny and block are asked for, and the entry that it makes of it with the rule files that there are."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fwguardd.ctl.service_table import find_service, names_of
from fwguardd.enforce.validate import compose_files
from fwguardd.escaping import printable
from fwguardd.ruleset.entries import Entry, entries_in, merged
from fwguardd.ruleset.forwarding import forward_rules, read_server
from fwguardd.ruleset.peers import AddressError, Network, addresses_in, is_set_name, peers_of, read_address, shown
from fwguardd.ruleset.placement import accepts_replies, closing_rule
from fwguardd.ruleset.services import Peers, RuleForm, Service, ServiceError, rules_for
from fwguardd.values import dataclass

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from fwguardd.enforce.rule_files import Snapshot
    from fwguardd.ruleset.lint import LintContext
    from fwguardd.ruleset.model import Candidate, RuleFile

FILES = {
    "allow": "60-allow.rules",
    "deny": "05-deny.rules",
    "block": "05-block.rules",
    "forward": "60-forward.rules",
}
"""The file of each verb. That of ``allow`` comes before the last rules of the shipped files; the rules of the others
are inserted at the head of their chains."""

MOST_ADDRESSES = 2_000
"""Addresses that an entry may name. A set takes more of them, in less time."""

_CHAINS = {False: ("INPUT", "PREROUTING"), True: ("OUTPUT", "OUTPUT")}
"""The chain of table filter, and that of table raw, by whether connections go to others."""


class EntryError(Exception):
    """An entry that cannot be written. The message says what to write instead."""


class OppositeEntryError(EntryError):
    """There is an entry that says the opposite."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for. ``what`` is a service, or the addresses to block; ``peers`` the words of --from.

    ``seconds`` is the time of --for, None for none. ``server`` is where ``forward`` leads to, "" for other verbs.
    """

    verb: str
    what: str
    peers: tuple[str, ...]
    outward: bool
    comment: str = ""
    seconds: float | None = None
    server: str = ""

    @property
    def command(self) -> str:
        """The first line of the entry."""
        words = [self.verb, self.what]
        if self.server:
            words += ["to", self.server]
        if self.outward:
            words.append("--out")
        if self.peers:
            words += [self._peers_option, ",".join(self.peers)]
        return shlex.join(words)

    @property
    def _peers_option(self) -> str:
        if self.outward:
            return "--to"
        return "--from"


def wanted_of(options: argparse.Namespace) -> Wanted:
    """What the command line asks for. Raises AddressError, ServiceError."""
    what = options.what
    if options.verb == "block":
        what = ",".join(_words([what]))
    comment = printable(" ".join((options.comment or "").split()))
    peers = tuple(_words(options.peers))
    name, server = _named(options.verb, what), _server_of(options)
    return Wanted(options.verb, name, peers, options.outward, comment, options.seconds, server)


def _server_of(options: argparse.Namespace) -> str:
    """Where connections are forwarded to, in one form; "" for other verbs. Raises ServiceError."""
    if options.verb != "forward":
        return ""
    return str(read_server(options.server))


def _named(verb: str, what: str) -> str:
    """The service as it is written in the first line, the same for each way to write it."""
    if verb == "block":
        return what
    return find_service(what).name


def _words(given: Sequence[str]) -> list[str]:
    """The words of lists, in a fixed order, each address in one form. Raises AddressError."""
    words: set[str] = set()
    for text in given:
        for word in text.split(","):
            words.add(_one_form(word.strip()))
    return sorted(words - {""})


def _one_form(word: str) -> str:
    if word.startswith("@"):
        return f"@{Path(word[1:]).resolve()}"
    if not word or is_set_name(word):
        return word
    return shown(read_address(word))


def _networks_and_sets(words: Sequence[str]) -> tuple[list[Network], list[str]]:
    """What the words stand for. Raises AddressError, EntryError."""
    networks: list[Network] = []
    sets = [word for word in words if is_set_name(word)]
    for word in words:
        networks += _networks_of(word)
    if len(networks) > MOST_ADDRESSES:
        advice = "write them into a set, NAME.set beside the rule files, and name it in place of the addresses"
        raise EntryError(f"{len(networks):,} addresses are too many for rules; {advice}")
    return networks, sets


def _networks_of(word: str) -> list[Network]:
    """The addresses that a word stands for; none for a set. Raises AddressError, EntryError."""
    if word.startswith("@"):
        return _addresses_of_file(Path(word[1:]))
    if is_set_name(word):
        return []
    return [read_address(word)]


def _addresses_of_file(path: Path) -> list[Network]:
    try:
        found = addresses_in(path.read_text(encoding="utf-8"))
    except AddressError as error:
        raise EntryError(f"{path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise EntryError(f"{path} cannot be read: {error}") from error
    if not found:
        raise EntryError(f"{path} has no address")
    return found


def _peers(words: Sequence[str], *, outward: bool) -> list[Peers]:
    networks, sets = _networks_and_sets(words)
    return peers_of(networks, sets, outward=outward)


def _rules(wanted: Wanted, snapshot: Snapshot, context: LintContext) -> tuple[str, ...]:
    """The rules of the entry, in the form that works with the other rule files."""
    if wanted.verb == "block":
        return _blocking_rules(wanted)
    if wanted.verb == "forward":
        return _forwarding_rules(wanted, snapshot, context)
    service, peers = find_service(wanted.what), _peers(wanted.peers, outward=wanted.outward)
    if wanted.outward and wanted.peers:
        service = replace(service, groups=())
    return tuple(rules_for(service, _form(wanted, service, snapshot, context), peers))


def _blocking_rules(wanted: Wanted) -> tuple[str, ...]:
    lines: list[str] = []
    for peers in _peers(wanted.what.split(","), outward=False):
        lines += [f"-I INPUT {peers.match} -j DROP", f"-I FORWARD {peers.match} -j DROP"]
    return tuple(lines)


def _forwarding_rules(wanted: Wanted, snapshot: Snapshot, context: LintContext) -> tuple[str, ...]:
    service, peers = find_service(wanted.what), _peers(wanted.peers, outward=False)
    if len(service.ports) != 1:
        raise EntryError(f"{wanted.what} has not one port; write a port, such as 8443/tcp")
    own = str(snapshot.directory / FILES["forward"])
    command = _placed([file for file in snapshot.files if file.path <= own], "FORWARD", context)
    return tuple(forward_rules(service.ports[0], read_server(wanted.server), peers, command))


def _form(wanted: Wanted, service: Service, snapshot: Snapshot, context: LintContext) -> RuleForm:
    """The form of the rules: where they stand in which chain, and what they do with which packets."""
    chain, raw_chain = _CHAINS[wanted.outward]
    state = _state(service, compose_files(snapshot.files, context).candidate, chain)
    if wanted.verb == "deny":
        return RuleForm(f"-I {chain}", state, "DROP")
    own = str(snapshot.directory / FILES["allow"])
    before = [file for file in snapshot.files if file.path <= own]
    return RuleForm(f"{_placed(before, chain, context)} {chain}", state, "ACCEPT", raw_chain)


def _state(service: Service, candidate: Candidate, chain: str) -> str:
    """The match of new connections, where another rule accepts the packets that follow."""
    if service.ping or not accepts_replies(candidate, chain):
        return ""
    return "-m conntrack --ctstate NEW"


def _placed(before: Sequence[RuleFile], chain: str, context: LintContext) -> str:
    """-A, or -I where the files before have closed the chain."""
    if before and closing_rule(compose_files(before, context).candidate, chain) is not None:
        return "-I"
    return "-A"


def entry_for(wanted: Wanted, snapshot: Snapshot, context: LintContext, known: Entry | None, now: float) -> Entry:
    """The entry, in the form that works with the other rule files.

    ``known`` is the one that is written already. Raises AddressError, EntryError, ServiceError.
    """
    until = None
    if wanted.seconds is not None:
        until = float(round(now + wanted.seconds))
    rules = _rules(wanted, snapshot, context)
    return merged(known, Entry(wanted.command, rules, wanted.comment, until), now)


def to_remove(verb: str, what: str, peers: Sequence[str], *, outward: bool, server: str = "") -> Wanted:
    """What the entry to take out asks for; a word that cannot be read stands for itself: the entry may be older."""
    try:
        if verb == "block":
            what = ",".join(_words([what]))
        return Wanted(verb, _named(verb, what), tuple(_words(peers)), outward, server=server)
    except (AddressError, ServiceError):
        return Wanted(verb, what, tuple(peers), outward, server=server)


def as_written(wanted: Wanted, text: str) -> Wanted:
    """The same under the name that an entry of this text has for its service, if there is one: postgres for postgresql.
    Raises ServiceError."""
    if wanted.verb == "block":
        return wanted
    commands = {entry.command for entry in entries_in(text)}
    for name in names_of(wanted.what):
        other = replace(wanted, what=name)
        if other.command in commands:
            return other
    return wanted
