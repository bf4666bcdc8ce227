"""The known errors of iptables and the kernel about a rule, each with its explanation: the fault, and what to write.

The words are those of iptables 1.8.9, both backends (iptables/xshared.c, libxtables/xtables.c and extensions/).

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from fwguardd.ruleset.error_hints import (
    address_hint,
    argument_hint,
    interface_hint,
    kernel_hint,
    kernel_message,
    match_hint,
    match_message,
    missing_hint,
    missing_message,
    name_hint,
    option_hint,
    ordered_range_hint,
    port_hint,
    protocol_hint,
    range_hint,
    repeated_hint,
    repeated_message,
    set_hint,
    split_hint,
    value_message,
)
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

    from fwguardd.ruleset.model import Finding

    Words = str | Callable[[re.Match[str], str], str]


@dataclass(frozen=True, slots=True)
class Explanation:
    """An error for people: a stable code, a sentence, and what to do."""

    code: str
    message: str
    hint: str


_OUTSIDE = frozenset(
    {"unknown-set", "set-of-other-family", "unresolvable-name", "missing-extension", "too-large"}
    | {"misrouted-test", "no-packets"}
)
"""Codes of errors about something that is not in the files: an ipset, a host name, a module or an object of the kernel,
memory, the interfaces and routes of this host."""

_OUTSIDE_OPTIONS = ("--uid-owner ", "--gid-owner ", "-m cgroup --path ", "--nfacct-name ")
"""Options whose value names a user, a group, a control group or an accounting object of this host."""

_PERHAPS_OUTSIDE = frozenset({"bad-value", "refused-by-kernel", "refused"})


def may_pass_later(finding: Finding) -> bool:
    """Whether an error is about something outside of the rule files, such as an ipset, which may come later."""
    if finding.code in _OUTSIDE:
        return True
    named = any(option in finding.line_text for option in _OUTSIDE_OPTIONS)
    return named and finding.code in _PERHAPS_OUTSIDE


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
    _Reason(r"Couldn't load match `([^']+)'", "unknown-match", match_message, match_hint),
    _Reason(
        r"Set ([^ ]+) doesn't exist",
        "unknown-set",
        'there is no ipset "{0}" on this host, so the rule cannot be loaded',
        'create it, now and before fwguardd at boot: "ipset create {0} hash:net", for IPv6 with family inet6',
    ),
    _Reason(
        r"protocol family of set ([^ ]+) is (IPv[46])", "set-of-other-family", 'the ipset "{0}" is for {1}', set_hint
    ),
    _Reason(
        r"host/network `([^']*[*%][^']*|[0-9.]+(?:-[0-9.]+)?|[0-9a-fA-F:.]*:[0-9a-fA-F:.-]*)' not found",
        "bad-address",
        '"{0}" is not an address',
        address_hint,
    ),
    _Reason(
        r"host/network `([^']+)' not found", "unresolvable-name", 'the host name "{0}" cannot be resolved', name_hint
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
        port_hint,
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
        r"Port `([^']+)' not valid",
        "bad-port",
        '"{0}" is not a port',
        "write a number from 1 to 65535; a range is written 8000-8010",
    ),
    _Reason(
        r"invalid portrange|Port range `[^']*' funky",
        "bad-port",
        "the first port of a range is larger than the last",
        ordered_range_hint,
    ),
    _Reason(
        r"invalid range given|[Ii]nvalid range specified|min > max",
        "bad-value",
        "the first number of a range is larger than the last",
        ordered_range_hint,
    ),
    _Reason(
        r'trailing garbage after value for option "([^"]+)"',
        "bad-value",
        "the value of {0} is not a number",
        "correct it; iptables-extensions(8) lists the valid values",
    ),
    _Reason(
        r'option "([^"]+)" can only be used once',
        "repeated-option",
        "{0} is given twice in one rule",
        "write two rules, or a list with commas",
    ),
    _Reason(
        r"too many ports specified",
        "too-many-ports",
        "a multiport match takes 15 ports at most, and a range counts as two",
        split_hint,
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
        option_hint,
    ),
    _Reason(r'unknown protocol "([^"]+)" specified', "bad-protocol", 'there is no protocol "{0}"', protocol_hint),
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
        value_message,
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
        range_hint,
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
    _Reason(r"Can't use (-[io]) with ([A-Z]+)", "wrong-interface", "{0} cannot be used in chain {1}", interface_hint),
    _Reason(
        r"interface name `([^']+)' must be shorter",
        "bad-interface",
        'the interface name "{0}" is longer than 15 characters',
        "correct it: 15 characters is the limit of the kernel",
    ),
    _Reason(r"[Bb]ad argument `([^']*)'", "bad-argument", '"{0}" does not belong to an option', argument_hint),
    _Reason(
        r"multiple (-[a-z]) flags not allowed|[Oo]nly one `([^']+)' allowed",
        "repeated-option",
        repeated_message,
        repeated_hint,
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
        kernel_message,
        kernel_hint,
    ),
    _Reason(
        r"No chain/target/match by that name|No such file or directory",
        "missing-extension",
        missing_message,
        missing_hint,
    ),
    _Reason(
        r"Message too long|No buffer space|Cannot allocate memory",
        "too-large",
        "these are too many rules for one transaction: the kernel limits its size, for other users more than for root",
        "run this as root",
    ),
)
"""The known errors. The first pattern that matches counts. Messages and hints may name the groups of the match."""
