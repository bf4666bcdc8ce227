"""The known errors of iptables and the kernel about a rule, each with its explanation: the fault, and what to write.

The words are those of iptables 1.8.9, both backends (iptables/xshared.c, libxtables/xtables.c and extensions/).

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fwguardd.ruleset.rule_view import RuleView, target_of
from fwguardd.ruleset.suggestions import MATCHES, OPTIONS, OWNERS, PROTOCOLS, TARGETS, nearest_name
from fwguardd.ruleset.values import MOST_PORTS, how_to_split, ports_counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Words = str | Callable[[re.Match[str], str], str]

_STATES = frozenset({"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"})
_CHAINS_OF_TARGETS: Mapping[str, str] = {
    "MASQUERADE": "POSTROUTING of table nat",
    "SNAT": "POSTROUTING and INPUT of table nat",
    "DNAT": "PREROUTING and OUTPUT of table nat",
    "REDIRECT": "PREROUTING and OUTPUT of table nat",
    "TPROXY": "PREROUTING of table mangle",
    "REJECT": "INPUT, FORWARD and OUTPUT",
}
"""The chains in which a target works (iptables-extensions(8)), for those that are often used elsewhere."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """An error for people: a stable code, a sentence, and what to do."""

    code: str
    message: str
    hint: str


def explain_words(words: str, rule: str) -> Explanation | None:
    """The explanation of an error in the words of the program, for a rule with this text; None for an unknown error."""
    for reason in _REASONS:
        match = re.search(reason.pattern, words)
        if match:
            return Explanation(reason.code, _filled(reason.message, match, rule), _filled(reason.hint, match, rule))
    return None


def _filled(words: Words, match: re.Match[str], rule: str) -> str:
    if isinstance(words, str):
        return words.format(*match.groups())
    return words(match, rule)


def _write(name: str, otherwise: str) -> str:
    if not name:
        return otherwise
    return f"write {name}"


def _match_hint(match: re.Match[str], _rule: str) -> str:
    return _write(
        nearest_name(match[1], MATCHES),
        "check the name after -m; iptables-extensions(8) lists all matches",
    )


def _set_hint(match: re.Match[str], _rule: str) -> str:
    number = int(match[2][-1])
    return f"write -{number} before the rule; for IPv{10 - number} name another set"


def _port_hint(match: re.Match[str], _rule: str) -> str:
    if "," in match[1]:
        return f'for several ports write "-m multiport --dports {match[1]}"'
    if re.fullmatch(r"[0-9]+-[0-9]+", match[1]):
        return f"a range is written {match[1].replace('-', ':')}"
    return "correct the port"


def _split_hint(_match: re.Match[str], rule: str) -> str:
    for option in RuleView.of(rule).options:
        if option.name in ("--dports", "--sports", "--ports") and ports_counted(option.value) > MOST_PORTS:
            return how_to_split(option.name, option.value)
    return "split it into two rules"


def _option_hint(match: re.Match[str], rule: str) -> str:
    if match[1] == "--port":
        return "write --dport for the destination port, --sport for the source port"
    if owner := OWNERS.get(match[1]):
        protocol = RuleView.of(rule).value("-p")
        if owner.startswith("-p ") and protocol:
            return f'write "{owner}" in place of "-p {protocol}"'
        return f'write "{owner}" before it'
    otherwise = "check its spelling; the -m or -j that it belongs to must stand before it"
    return _write(nearest_name(match[1], OPTIONS), otherwise)


def _argument_hint(match: re.Match[str], rule: str) -> str:
    word = match[1]
    hints = (
        (word in TARGETS, f"write -j {word}"),
        (word in _STATES, f'write "-m conntrack --ctstate {word}"'),
        (word.isdigit() and rule.startswith(word), "write -I to insert at a position; -A appends"),
        (word.startswith("//"), "start a comment with #"),
        (re.fullmatch(r"255\.[0-9.]+", word), "join the mask to the address: ADDRESS/MASK"),
        (f"-j DNAT {word}" in rule, "write --to-destination before it"),
        (f"-j SNAT {word}" in rule, "write --to-source before it"),
        (f", {word}" in rule, "write lists without blanks: A,B"),
    )
    for applies, hint in hints:
        if applies:
            return hint
    return 'put text with spaces in double quotes, and check for a missing "-" or "--"'


def _address_hint(match: re.Match[str], _rule: str) -> str:
    word = match[1]
    if re.fullmatch(r"[0-9a-fA-F.:]+-[0-9a-fA-F.:]+", word):
        return f'a range is written "-m iprange --src-range {word}"'
    if "*" in word:
        return "write a network: 192.168.1.0/24"
    if "%" in word:
        return "write the address alone, and the interface with -i"
    if ":" in word:
        return "correct it"
    return "correct it; the numbers of an IPv4 address go up to 255"


def _name_hint(match: re.Match[str], _rule: str) -> str:
    if match[1].lower() in ("any", "all", "anywhere", "*"):
        return "leave the option out: without it any address matches"
    return "write the address instead: a firewall must load before the network is up"


def _protocol_hint(match: re.Match[str], _rule: str) -> str:
    if re.search(r"[,/]", match[1]):
        return "write a rule for each protocol"
    return _write(nearest_name(match[1], PROTOCOLS), "write a name of /etc/protocols, or a number")


def _value_message(match: re.Match[str], _rule: str) -> str:
    if match[1]:
        return f'"{match[2]}" is not a valid value for {match[1]}'
    return f'"{match[4]}" is not an address'


def _range_hint(match: re.Match[str], _rule: str) -> str:
    if match[2] is None:
        return "correct it; iptables-extensions(8) lists the valid values"
    return f"write a number from {match[2].replace('-', ' to ', 1)}"


def _interface_hint(match: re.Match[str], _rule: str) -> str:
    other = {"-i": "-o", "-o": "-i"}[match[1]]
    return f"write {other}, or leave it out"


def _repeated_message(match: re.Match[str], _rule: str) -> str:
    return f"{match[1] or match[2]} is given twice in one rule"


def _repeated_hint(match: re.Match[str], _rule: str) -> str:
    if match[1] == "-j":
        return "write two rules"
    return "write two rules, or a list with commas"


def _kernel_message(_match: re.Match[str], rule: str) -> str:
    if _resets_other_protocols(rule):
        return "tcp-reset works for TCP only"
    return "the kernel refuses this rule in this chain"


def _kernel_hint(_match: re.Match[str], rule: str) -> str:
    if _resets_other_protocols(rule):
        return "write -p tcp, or another type"
    target = target_of(rule) or ""
    if target in _CHAINS_OF_TARGETS:
        return f"{target} works in {_CHAINS_OF_TARGETS[target]}"
    return "its target or one of its matches works only in other tables or chains; see iptables-extensions(8)"


def _resets_other_protocols(rule: str) -> bool:
    view = RuleView.of(rule)
    return view.value("--reject-with") == "tcp-reset" and view.value("-p") not in ("tcp", "6")


class _Reason(NamedTuple):
    pattern: str
    code: str
    message: Words
    hint: Words


_REASONS = (
    _Reason(
        r"Too many links",
        "jumps-too-deep",
        "the jumps that lead here are nested too deeply for the kernel",
        "nest fewer chains: the limit of nf_tables is 16",
    ),
    _Reason(r"Couldn't load match `([^']+)'", "unknown-match", 'there is no match "{0}"', _match_hint),
    _Reason(
        r"Set ([^ ]+) doesn't exist",
        "unknown-set",
        'there is no ipset "{0}" on this host, so the rule cannot be loaded',
        'create it, now and before fwguardd at boot: "ipset create {0} hash:net", for IPv6 with family inet6',
    ),
    _Reason(
        r"protocol family of set ([^ ]+) is (IPv[46])", "set-of-other-family", 'the ipset "{0}" is for {1}', _set_hint
    ),
    _Reason(
        r"host/network `([^']*[*%][^']*|[0-9.]+(?:-[0-9.]+)?|[0-9a-fA-F:.]*:[0-9a-fA-F:.-]*)' not found",
        "bad-address",
        '"{0}" is not an address',
        _address_hint,
    ),
    _Reason(
        r"host/network `([^']+)' not found", "unresolvable-name", 'the host name "{0}" cannot be resolved', _name_hint
    ),
    _Reason(
        r"invalid mask `([^']+)' specified",
        "bad-address",
        '"/{0}" is not a valid mask',
        "write a number of bits: up to /32 for IPv4, up to /128 for IPv6",
    ),
    _Reason(
        r"invalid port/service `([^']+)' specified",
        "bad-port",
        '"{0}" is neither a port (0 to 65535) nor a service of /etc/services',
        _port_hint,
    ),
    _Reason(
        r"Port `([^']+)' not valid",
        "bad-port",
        '"{0}" is not a port',
        "write a number from 1 to 65535; a range is written 8000-8010",
    ),
    _Reason(
        r"invalid portrange|Port range `[^']*' funky",
        "bad-port",
        "the first port of a range is larger than the last",
        "write the smaller port first",
    ),
    _Reason(
        r"Need TCP, UDP, SCTP or DCCP with port specification",
        "port-without-protocol",
        "a port without a protocol",
        "write -p tcp or -p udp before -j",
    ),
    _Reason(
        r'The "nat" table is not intended for filtering',
        "wrong-table",
        "rules of table nat cannot drop packets",
        "write the rule in table filter",
    ),
    _Reason(
        r"too many ports specified",
        "too-many-ports",
        "a multiport match takes 15 ports at most, and a range counts as two",
        _split_hint,
    ),
    _Reason(
        r'unknown option "(--[sd]ports|--ports)"',
        "ports-without-multiport",
        '{0} without "-m multiport"',
        'write "-m multiport" before it',
    ),
    _Reason(
        r'unknown option "(--[sd]port|--source-port|--destination-port)"',
        "port-without-protocol",
        "{0} without a protocol",
        "write -p tcp or -p udp before it",
    ),
    _Reason(
        r"([A-Za-z0-9]+) match requires '-p ([a-z0-9-]+)'",
        "port-without-protocol",
        "-m {1} without its protocol",
        "write -p {1} before it",
    ),
    _Reason(
        r'unknown option "([^"]+)"',
        "unknown-option",
        'no match or target of this rule has the option "{0}"',
        _option_hint,
    ),
    _Reason(r'unknown protocol "([^"]+)" specified', "bad-protocol", 'there is no protocol "{0}"', _protocol_hint),
    _Reason(
        r'Bad (?:ct)?state "([^"]+)"',
        "bad-value",
        'there is no connection state "{0}"',
        "the states are NEW, ESTABLISHED, RELATED, INVALID and UNTRACKED",
    ),
    _Reason(
        r"bad rate \"?([^\"']+)",
        "bad-value",
        '"{0}" is not a rate',
        "write a number per second, minute, hour or day: 5/minute",
    ),
    _Reason(
        r'log level "([^"]+)" unknown',
        "bad-value",
        'there is no log level "{0}"',
        "the levels are 0 to 7, or emerg, alert, crit, error, warning, notice, info, debug",
    ),
    _Reason(
        r'unknown reject type "([^"]+)"',
        "bad-value",
        'REJECT has no type "{0}"',
        "iptables-extensions(8) lists the types of REJECT for each family",
    ),
    _Reason(
        r'Bad value for "([^"]+)" option: "([^"]*)"|([Bb]ad IP address) "([^"]+)"',
        "bad-value",
        _value_message,
        "correct it; iptables-extensions(8) lists the valid values",
    ),
    _Reason(
        r"--tcp-flags requires two args",
        "missing-value",
        "--tcp-flags requires two lists",
        "write the flags to check, then those that must be set: --tcp-flags SYN,ACK SYN",
    ),
    _Reason(
        r"(--(?:match|add|del)-set) requires two args",
        "missing-value",
        "{0} requires the name of a set, and src or dst",
        "write both: {0} NAME src",
    ),
    _Reason(
        r'bad (?:integer )?value for option "([^"]+)"(?: near "[^"]*")?, or out of range(?: \(([^)]+)\))?',
        "bad-value",
        "the value of {0} is not valid",
        _range_hint,
    ),
    _Reason(
        r'invalid time "([^"]*)" specified', "bad-value", '"{0}" is not a time of day', "write hh:mm or hh:mm:ss: 23:59"
    ),
    _Reason(
        r"Invalid MAC address", "bad-value", "a MAC address is six pairs of digits", "write all six: 02:00:5e:10:00:01"
    ),
    _Reason(r'option "([^"]+)" requires an argument', "missing-value", "{0} has no value", "write its value after it"),
    _Reason(
        r'([A-Za-z0-9_]+): option "([^"]+)" must be specified',
        "missing-option",
        "{0} requires {1}",
        "write {1} and its value after {0}",
    ),
    _Reason(r"Can't use (-[io]) with ([A-Z]+)", "wrong-interface", "{0} cannot be used in chain {1}", _interface_hint),
    _Reason(
        r"interface name `([^']+)' must be shorter",
        "bad-interface",
        'the interface name "{0}" is longer than 15 characters',
        "correct it: 15 characters is the limit of the kernel",
    ),
    _Reason(r"[Bb]ad argument `([^']*)'", "bad-argument", '"{0}" does not belong to an option', _argument_hint),
    _Reason(
        r"multiple (-[a-z]) flags not allowed|[Oo]nly one `([^']+)' allowed",
        "repeated-option",
        _repeated_message,
        _repeated_hint,
    ),
    _Reason(
        r"Extension ([^ ]+) revision [0-9]+ not supported, missing kernel module",
        "missing-extension",
        "the kernel has no module for {0}",
        "load the module, or remove {0} from the rule",
    ),
    _Reason(
        r"Invalid argument|Operation not supported|^line [0-9]+ failed$",
        "refused-by-kernel",
        _kernel_message,
        _kernel_hint,
    ),
    _Reason(
        r"No chain/target/match by that name|No such file or directory",
        "missing-extension",
        "the kernel lacks a chain, a target or a match that this rule names",
        "check the spelling, and that the kernel has the module",
    ),
    _Reason(
        r"Message too long|No buffer space|Cannot allocate memory",
        "too-large",
        "the kernel has not enough memory for so many rules in one transaction",
        "try again; for root the limit is higher",
    ),
)
"""The known errors. The first pattern that matches counts. Messages and hints may name the groups of the match."""
