"""The reasons for which iptables and the kernel refuse a rule, in plain words: a table of what they print.

Each row is a pattern for the tool's own words, a code, a sentence and what to do; either may be made from the match and
the text of the rule. The first row that matches counts. Words of 1.8.9, both backends (iptables/xshared.c,
libxtables/xtables.c and extensions/ of iptables).

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fwguardd.ruleset.suggestions import MATCHES, OPTIONS, OWNERS, PROTOCOLS, TARGETS, nearest_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Said = re.Match[str]
    Words = str | Callable[[Said, str], str]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A refusal for people: a stable code, a sentence, and what to do."""

    code: str
    message: str
    hint: str


_STATES = frozenset({"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"})


@dataclass(frozen=True, slots=True)
class _Row:
    pattern: re.Pattern[str]
    code: str
    message: Words
    hint: Words


def explain_reason(words: str, rule: str) -> Explanation | None:
    """What the tool's words mean for a rule of this text; None where they are not known."""
    for row in _ROWS:
        match = row.pattern.search(words)
        if match:
            return Explanation(row.code, _said(row.message, match, rule), _said(row.hint, match, rule))
    return None


def _said(words: Words, match: Said, rule: str) -> str:
    return words.format(*match.groups()) if isinstance(words, str) else words(match, rule)


def _write(meant: str, otherwise: str) -> str:
    return f"write {meant}" if meant else otherwise


def _about_ports(match: Said, _rule: str) -> str:
    if "," in match[1]:
        return f'for several ports write "-m multiport --dports {match[1]}"'
    if re.fullmatch(r"[0-9]+-[0-9]+", match[1]):
        return f"a range is written {match[1].replace('-', ':')}"
    return "correct the port"


def _about_option(match: Said, _rule: str) -> str:
    if match[1] == "--port":
        return "write --dport for the port that is called, --sport for the one that calls"
    if owner := OWNERS.get(match[1]):
        return f'write "{owner}" before it'
    otherwise = "check its spelling, and that the -m or -j that it belongs to stands before it"
    return _write(nearest_name(match[1], OPTIONS), otherwise)


def _about_argument(match: Said, rule: str) -> str:
    word = match[1]
    hints = (
        (word in TARGETS, f"write -j {word}"),
        (word in _STATES, f'write "-m conntrack --ctstate {word}"'),
        (word.isdigit() and rule.startswith(word), "write -I to insert at a place; -A appends"),
        (word.startswith("//"), "start a comment with #"),
        (re.fullmatch(r"255\.[0-9.]+", word), "join the mask to the address: ADDRESS/MASK"),
        (f"-j DNAT {word}" in rule, "write --to-destination before it"),
        (f"-j SNAT {word}" in rule, "write --to-source before it"),
        (f", {word}" in rule, "write lists without blanks: A,B"),
        (True, 'put text with spaces in double quotes, and check for a missing "-" or "--"'),
    )
    return next(hint for holds, hint in hints if holds)


def _address_fault(match: Said, _rule: str) -> str:
    return f'"{match[1]}" is no address'


def _about_address(match: Said, _rule: str) -> str:
    word = match[1]
    if re.fullmatch(r"[0-9a-fA-F.:]+-[0-9a-fA-F.:]+", word):
        return f'a range is written "-m iprange --src-range {word}"'
    if "*" in word:
        return "write a network: 192.168.1.0/24"
    if "%" in word:
        return "write the address alone, and the interface with -i"
    return "correct it; the numbers of an IPv4 address go up to 255" if ":" not in word else "correct it"


def _about_name(match: Said, _rule: str) -> str:
    if match[1].lower() in ("any", "all", "anywhere", "*"):
        return "leave the option out: without it any address matches"
    return "write the address instead: a firewall must load before the network is up"


def _about_protocol(match: Said, _rule: str) -> str:
    if re.search(r"[,/]", match[1]):
        return "write a rule for each protocol"
    return _write(nearest_name(match[1], PROTOCOLS), "protocols have the names of /etc/protocols, or numbers")


_HOMES: Mapping[str, str] = {
    **dict.fromkeys(("MASQUERADE",), "POSTROUTING of table nat"),
    **dict.fromkeys(("SNAT",), "POSTROUTING and INPUT of table nat"),
    **dict.fromkeys(("DNAT", "REDIRECT"), "PREROUTING and OUTPUT of table nat"),
    "TPROXY": "PREROUTING of table mangle",
    "REJECT": "INPUT, FORWARD and OUTPUT",
}
"""The chains in which a target works (iptables-extensions(8)), for those that are often put elsewhere."""


def _kernel_fault(_match: Said, rule: str) -> str:
    return "tcp-reset answers TCP alone" if _resets_anything(rule) else "the kernel refuses this rule in this chain"


def _about_kernel(_match: Said, rule: str) -> str:
    if _resets_anything(rule):
        return "write -p tcp, or another type"
    target = re.search(r"(?:^| )(?:-j|--jump) +([A-Z]+)", rule)
    if target and target[1] in _HOMES:
        return f"{target[1]} works in {_HOMES[target[1]]}"
    return "a target or match in it works only in other tables or chains; iptables-extensions(8) names them"


def _resets_anything(rule: str) -> bool:
    return "tcp-reset" in rule and not re.search(r"(?:-p|--proto(?:col)?) +(?:tcp|6)\b", rule)


_ROWS = tuple(
    _Row(re.compile(pattern), code, message, hint)
    for pattern, code, message, hint in (
        (
            r"Too many links",
            "jumps-too-deep",
            "the jumps that lead here are nested too deeply for the kernel",
            "call fewer chains from chains; 16 deep is the limit of nf_tables",
        ),
        (
            r"Couldn't load match `([^']+)'",
            "unknown-match",
            'there is no match "{0}"',
            lambda match, _: _write(
                nearest_name(match[1], MATCHES), "check its spelling after -m; iptables-extensions(8) lists them all"
            ),
        ),
        (
            r"Set ([^ ]+) doesn't exist",
            "unknown-set",
            'there is no ipset "{0}" on this host, so the rule cannot be loaded',
            'create it, now and before fwguardd at boot: "ipset create {0} hash:net", for IPv6 with family inet6',
        ),
        (
            r"protocol family of set ([^ ]+) is (IPv[46])",
            "set-of-other-family",
            'the ipset "{0}" is for {1}',
            lambda match, _: f"write -{match[2][-1]} before the rule; for IPv{10 - int(match[2][-1])} name another set",
        ),
        (
            r"host/network `([^']*[*%][^']*|[0-9.]+(?:-[0-9.]+)?|[0-9a-fA-F:.]*:[0-9a-fA-F:.-]*)' not found",
            "bad-address",
            _address_fault,
            _about_address,
        ),
        (
            r"host/network `([^']+)' not found",
            "unresolvable-name",
            'no address can be found for the name "{0}"',
            _about_name,
        ),
        (
            r"invalid mask `([^']+)' specified",
            "bad-address",
            '"/{0}" is no mask',
            "write a number of bits: up to /32 for IPv4, up to /128 for IPv6",
        ),
        (
            r"invalid port/service `([^']+)' specified|invalid port(?:/service)? \"([^\"]+)\"",
            "bad-port",
            '"{0}" is neither a port (0 to 65535) nor a service of /etc/services',
            _about_ports,
        ),
        (
            r"Need TCP, UDP, SCTP or DCCP with port specification",
            "port-without-protocol",
            "a port without a protocol",
            "write -p tcp or -p udp before -j",
        ),
        (
            r'The "nat" table is not intended for filtering',
            "wrong-table",
            "table nat is not for dropping packets",
            "write the rule in table filter",
        ),
        (
            r"too many ports specified",
            "too-many-ports",
            "a multiport match takes 15 ports at most, and a range counts as two",
            "write two rules",
        ),
        (
            r'unknown option "(--[sd]ports|--ports)"',
            "ports-without-multiport",
            '{0} without "-m multiport"',
            'write "-m multiport" before it',
        ),
        (
            r'unknown option "(--[sd]port|--source-port|--destination-port)"',
            "port-without-protocol",
            "{0} without a protocol",
            "write -p tcp or -p udp before it",
        ),
        (
            r"([A-Za-z0-9]+) match requires '-p ([a-z0-9-]+)'",
            "port-without-protocol",
            "-m {1} without its protocol",
            "write -p {1} before it",
        ),
        (
            r'unknown option "([^"]+)"',
            "unknown-option",
            'nothing in this rule knows the option "{0}"',
            _about_option,
        ),
        (r'unknown protocol "([^"]+)" specified', "bad-protocol", 'there is no protocol "{0}"', _about_protocol),
        (
            r'Bad (?:ct)?state "([^"]+)"',
            "bad-value",
            'there is no connection state "{0}"',
            "the states are NEW, ESTABLISHED, RELATED, INVALID and UNTRACKED",
        ),
        (
            r"bad rate \"?([^\"']+)",
            "bad-value",
            '"{0}" is no rate',
            "write a number for each second, minute, hour or day: 5/minute",
        ),
        (
            r'log level "([^"]+)" unknown',
            "bad-value",
            'there is no log level "{0}"',
            "the levels are 0 to 7, or emerg, alert, crit, error, warning, notice, info, debug",
        ),
        (
            r'unknown reject type "([^"]+)"',
            "bad-value",
            'REJECT has no type "{0}"',
            "iptables-extensions(8) lists the types of REJECT for each family",
        ),
        (
            r'Bad value for "([^"]+)" option: "([^"]*)"|([Bb]ad IP address) "([^"]+)"',
            "bad-value",
            lambda match, _: f'"{match[2]}" is no value for {match[1]}' if match[1] else f'"{match[4]}" is no address',
            "correct it; iptables-extensions(8) tells what it may be",
        ),
        (
            r"--tcp-flags requires two args",
            "missing-value",
            "--tcp-flags needs two lists",
            "write the flags to look at, and behind them those that are set: --tcp-flags SYN,ACK SYN",
        ),
        (
            r"Invalid MAC address",
            "bad-value",
            "a MAC address is six pairs of digits",
            "write all six: 02:00:5e:10:00:01",
        ),
        (r'option "([^"]+)" requires an argument', "missing-value", "nothing follows {0}", "write its value behind it"),
        (
            r'([A-Za-z0-9_]+): option "([^"]+)" must be specified',
            "missing-option",
            "{0} needs {1}",
            "write {1} and its value behind {0}",
        ),
        (
            r"Can't use (-[io]) with ([A-Z]+)",
            "wrong-interface",
            "{0} does not go with {1}",
            lambda match, _: f"write {'-i' if match[1] == '-o' else '-o'}, or leave it out",
        ),
        (
            r"interface name `([^']+)' must be shorter",
            "bad-interface",
            'the interface name "{0}" is over 15 characters',
            "correct it; the kernel has no longer names",
        ),
        (
            r"[Bb]ad argument `([^']*)'",
            "bad-argument",
            '"{0}" belongs to no option',
            _about_argument,
        ),
        (
            r"multiple (-[a-z]) flags not allowed|[Oo]nly one `([^']+)' allowed",
            "repeated-option",
            lambda match, _: f"{match[1] or match[2]} is said twice in one rule",
            lambda match, _: "write two rules" if match[1] == "-j" else "write two rules, or a list with commas",
        ),
        (
            r"Extension ([^ ]+) revision [0-9]+ not supported, missing kernel module",
            "missing-extension",
            "the kernel has no module for {0}",
            "load it, or do without",
        ),
        (
            r"Invalid argument|Operation not supported|^line [0-9]+ failed$",
            "refused-by-kernel",
            _kernel_fault,
            _about_kernel,
        ),
        (
            r"No chain/target/match by that name|No such file or directory",
            "missing-extension",
            "the kernel lacks a chain, a target or a match that this rule names",
            "check the spelling, and that the kernel has the module",
        ),
        (
            r"Message too long|No buffer space|Cannot allocate memory",
            "too-large",
            "the kernel had no room for so many rules at once",
            "try again, or with the privilege to raise the limit",
        ),
    )
)
