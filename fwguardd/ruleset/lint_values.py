"""Warnings about values that iptables accepts and that mean something else than they look like: networks, numbers,
interfaces, names, texts that are cut, and times that have passed.

The texts of rules are searched first for what may be odd: most rules have nothing of it, and are not read further.

This module is pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.conditions import read_conditions
from fwguardd.ruleset.lint_matches import why_never
from fwguardd.ruleset.model import BOTH, BUILTIN_CHAINS, Finding, Severity
from fwguardd.ruleset.rule_view import RuleView
from fwguardd.ruleset.statements import Addition, Declaration
from fwguardd.ruleset.suggestions import TARGETS
from fwguardd.ruleset.values import (
    MOST_PORTS,
    has_odd_base,
    how_number_is_read,
    how_to_split,
    ports_counted,
    read_network,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fwguardd.ruleset.rule_view import Option
    from fwguardd.ruleset.statements import Statement
    from fwguardd.ruleset.values import Network

LONGEST_COMMENT = 255
"""Bytes of a comment that the kernel keeps (XT_MAX_COMMENT_LEN less the final NUL, linux/netfilter/xt_comment.h)."""

_ADDRESS = r"(?:-[sd]|--s(?:rc|ou[a-z]*)|--d(?:st|es[a-z]*))[ \t=]+!?[ \t]*"
_MAY_WARN = pattern(
    # A number that begins with 0 or +, where it is not part of a longer word; a mask; a short address or a name;
    rf"[ =,:/.-](?:0[0-9xX]|\+[0-9])|{_ADDRESS}(?:[^ ]*/|[0-9.]+(?![^ \t])|[^ \t]*[g-zG-Z]|[^ ]*::ffff:)"
    # an interface that is not a plain name;
    r"|(?:-[io]|interface)[ \t=]+(?:[^ \t]*(?:[:*?]|[0-9]+\.[0-9]+\.[0-9])|\+(?![^ ]))"
    # a range; TCP flags other than the usual ones;
    r"|port[ \t=]+[0-9]*:?[6-9][0-9]{4}|port[ \t=]+[0-9]*:?[0-9]{6}"
    r"|-range[ \t=]|-to-[sd][^ ]+[ \t=]+[^ ]*-|(?:length|spi)[ \t=][^ ]+:"
    r"|-tcp-flags (?!(?:FIN,SYN,RST,ACK|SYN,RST) SYN )"
    r"|'|--date|MASQ|TRACE|(?i:notrack)|ports(?:[^,:]*[,:]){15}"
)
_OCTET = r"(?:0|[1-9][0-9]{0,2})"
_PLAIN_NETWORK = pattern(
    rf"{_ADDRESS}(?:{_OCTET}\.{_OCTET}\.(?:{_OCTET}\.(?:{_OCTET}(?:/32)?|0/24)|0\.0/16)|[0-9a-f:]+/128)(?![^ ])"
)
_LARGE_PORT = pattern(r"[1-9][0-9]{4,8}")
_ODD_INTERFACE = pattern(r"(?P<alias>[^:]+):|(?P<star>[^*?]*)[*?]|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+")
_SHORT_ADDRESS = pattern(r"[0-9]+(?:\.[0-9]+){0,2}\.?$")
_ADDRESS_OR_LIST = pattern(r"[0-9a-fA-FxX:.,/+]+$")
_MAPPED = pattern(
    r"(?:0*:)*:?:ffff:(?:[0-9]+(?:\.[0-9]+){3}|[0-9a-f]{1,4}:[0-9a-f]{1,4})(?:/(?:9[7-9]|1[0-9]+))?", re.IGNORECASE
)
_MOMENT = pattern(
    r"([0-9]{4})(?:-([0-9]{1,2})(?:-([0-9]{1,2})(?:T([0-9]{1,2})(?::([0-9]{1,2})(?::([0-9]{1,2}))?)?)?)?)?"
)
_QUOTED_VALUE = pattern(r"'([^']*)'")

_TARGETS = frozenset(TARGETS) | {
    *("AUDIT", "CHECKSUM", "CLASSIFY", "CLUSTERIP", "CONNSECMARK", "DNPT", "ECN", "HMARK", "IDLETIMER", "LED"),
    *("RATEEST", "SECMARK", "SNPT", "SYNPROXY", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "ULOG"),
}
_AT_A_WORD = frozenset({"any-address", "host-bits", "mask-with-holes", "never-matches", "odd-number", "v4-mapped"})
"""The codes of which one rule can have several, each about another word."""

_PORT_OPTIONS = frozenset({"--dport", "--sport", "--dports", "--sports", "--ports", "--to-ports", "--on-port"})
_NUMBER_OPTIONS = _PORT_OPTIONS | {
    *("-s", "-d", "-p", "--src-range", "--dst-range", "--icmp-type", "--icmpv6-type", "--ttl-eq", "--ttl-lt"),
    *("--ttl-gt", "--ttl-set", "--hl-eq", "--hl-lt", "--hl-gt", "--hl-set", "--length", "--limit-burst"),
    *("--seconds", "--hitcount", "--connlimit-above", "--connlimit-upto", "--connlimit-mask", "--hashlimit-burst"),
    *("--to-destination", "--to-source", "--nflog-group", "--queue-num"),
}
"""Options whose numbers iptables reads with base 0. Marks are left out: they are written in hexadecimal on purpose."""


DATES = "--date"
"""What is in each rule whose warnings depend on the time."""

Lines = Mapping[str, Sequence[str]]
"""The lines of each file by its path."""


def lint_values(statements: Iterable[Statement], lines: Lines, now: datetime | None) -> Iterator[Finding]:
    """All warnings about the values in files with these lines. ``now`` is the time to which dates are compared; None
    compares none."""
    for statement in statements:
        if isinstance(statement, Declaration):
            yield from _lint_declaration(statement)
        elif isinstance(statement, Addition) and may_have_odd_values(statement.text):
            yield from _lint_rule(statement, lines, now)


def may_have_odd_values(text: str) -> bool:
    """Whether any of these warnings can be about a rule of this text."""
    if _MAY_WARN.search(_PLAIN_NETWORK.sub("", text)):
        return True
    return len(text) > LONGEST_COMMENT or not text.isascii()


def _lint_declaration(declaration: Declaration) -> Iterator[Finding]:
    table, chain = declaration.table, declaration.chain
    if table == "nat" and declaration.policy == "DROP":
        message = f"the policy of {chain} in table nat is DROP: new connections are dropped, whatever filter accepts"
        yield _warning("nat-policy", message, declaration, "write ACCEPT, and drop packets in table filter")
    if chain in _TARGETS and chain not in BUILTIN_CHAINS[table]:
        message = f"chain {chain} hides the target of this name: -j {chain} jumps to the chain"
        yield _warning("chain-hides-target", message, declaration, "choose another name for the chain")


def _lint_rule(rule: Addition, lines: Lines, now: datetime | None) -> Iterator[Finding]:
    view = RuleView.of(rule.text)
    line = "".join(lines.get(rule.origin.path, ())[rule.origin.line - 1 : rule.origin.line])
    for option in view.options:
        for finding in _lint_option(rule, option):
            yield _with_column(finding, line, option)
    yield from _lint_comment(rule, view)
    yield from _lint_dates(rule, view, now)
    yield from _lint_targets(rule, view)


def _lint_option(rule: Addition, option: Option) -> Iterator[Finding]:
    check = _CHECKS.get(option.name)
    if check is not None:
        yield from check(rule, option)
    if option.name in _NUMBER_OPTIONS:
        yield from _lint_numbers(rule, option)
    never = why_never(option)
    if never is not None:
        yield _warning("never-matches", never[0], rule, never[1])


def _with_column(finding: Finding, line: str, option: Option) -> Finding:
    """The finding with the column of the value, if it is about that word."""
    if finding.code in _AT_A_WORD:
        return replace(finding, column=line.find(option.value) + 1)
    return finding


def _lint_addresses(rule: Addition, option: Option) -> Iterator[Finding]:
    if option.value and not _ADDRESS_OR_LIST.match(option.value):
        message = (
            f'"{option.value}" is a host name: it is resolved when the rules load, not again when its address changes'
        )
        hint = "write the address; at boot the rules load before names can be resolved"
        yield _warning("host-name", message, rule, hint)
        return
    for value in option.value.split(","):
        yield from _lint_address(rule, value)


def _lint_address(rule: Addition, value: str) -> Iterator[Finding]:
    if _MAPPED.fullmatch(value):
        message = f'"{value}" is an IPv4 address in the form of IPv6, which no IPv6 packet has'
        yield _warning("v4-mapped", message, rule, "write the IPv4 address, in a rule for IPv4")
    elif _SHORT_ADDRESS.match(value):
        numbers = value.rstrip(".").split(".")
        whole = ".".join([*numbers, *["0"] * (4 - len(numbers))])
        message = f'"{value}" without a mask means the single address {whole}'
        yield _warning("short-address", message, rule, f"write {whole}/{8 * len(numbers)}")
    elif "/" in value:
        yield from _lint_network(rule, value)


def _lint_network(rule: Addition, value: str) -> Iterator[Finding]:
    network = read_network(value)
    if network is None or _is_exact(network):
        return
    address = value.partition("/")[0]
    if network.is_everything:
        message = f'"{value}" means every address: a mask of 0 leaves nothing of {address}'
        hint = f"write {address} for this address alone, or leave the option out"
        yield _warning("any-address", message, rule, hint)
    elif network.has_holes:
        message = f'the mask of "{value}" has holes: it means {network}'
        hint = "write the number of leading bits: /24 is 255.255.255.0"
        yield _warning("mask-with-holes", message, rule, hint)
    else:
        message = f'"{value}" means the network {network}'
        yield _warning("host-bits", message, rule, f"write {network}, or {address} for the single address")


def _is_exact(network: Network) -> bool:
    """Whether the value means what it seems to mean: an address without host bits, a mask without holes."""
    return not network.has_host_bits and not network.has_holes


def _lint_port_range(rule: Addition, option: Option) -> Iterator[Finding]:
    """A port that is too large, at an end of a range: iptables refuses it for tcp, and cuts it to 16 bits for others
    (parse_udp_ports() in extensions/libxt_udp.c of iptables 1.8.9)."""
    if ":" not in option.value:
        return
    for word in option.value.split(":"):
        if _LARGE_PORT.fullmatch(word) is not None and int(word) > 65_535:
            message = (
                f'"{word}" is larger than 65535, the largest port: in a range it may be read as {int(word) % 65_536}'
            )
            yield _warning("odd-number", message, rule, "correct the port")


def _lint_numbers(rule: Addition, option: Option) -> Iterator[Finding]:
    for word in re.split(r"[,-]", option.value):
        if has_odd_base(word):
            message = f'"{word}" {how_number_is_read(word)}'
            hint = "write it in decimal, without a leading zero or plus sign"
            yield _warning("odd-number", message, rule, hint)
            return


def _any_interface(rule: Addition, option: Option) -> Finding:
    matched = "every interface"
    if option.negated:
        matched = "no interface"
    hint = f'leave {option.name} out, or write the beginning of a name before the +: "eth+"'
    return _warning("odd-interface", f'"+" alone matches {matched}', rule, hint)


def _lint_interface(rule: Addition, option: Option) -> Iterator[Finding]:
    name = option.value
    if name == "+":
        yield _any_interface(rule, option)
        return
    match = _ODD_INTERFACE.match(name)
    if match is None:
        return
    message, hint = _what_is_odd(name, match)
    yield _warning("odd-interface", message, rule, hint)


def _what_is_odd(name: str, match: re.Match[str]) -> tuple[str, str]:
    """What the name of an interface means, and what to write in its place."""
    if match["alias"]:
        message = f'"{name}" is the label of an address, not an interface: no packet matches it'
        return message, f"write {match['alias']}, and match the address with -d or -s"
    if match["star"]:
        message = f'"{name}" matches only an interface with exactly this name'
        return message, f'write "{match["star"]}+": a + at the end matches any ending'
    return f'"{name}" is an address, not an interface', "write the interface, or match the address with -s or -d"


def _lint_port_list(rule: Addition, option: Option) -> Iterator[Finding]:
    count = ports_counted(option.value)
    if count > MOST_PORTS:
        message = f"a multiport match takes {MOST_PORTS} ports at most, and this one has {count}; a range counts as two"
        yield Finding("too-many-ports", message, rule.origin, hint=how_to_split(option.name, option.value))


def _lint_quotes(rule: Addition, option: Option) -> Iterator[Finding]:
    match = _QUOTED_VALUE.fullmatch(option.value)
    if match is not None and f'"{match[0]}"' not in rule.text:
        message = "iptables-restore reads single quotes as ordinary characters: they become part of the text"
        yield _warning("single-quotes", message, rule, f'write "{match[1]}"')


_CHECKS: Mapping[str, Callable[[Addition, Option], Iterator[Finding]]] = {
    **dict.fromkeys(("-s", "-d"), _lint_addresses),
    **dict.fromkeys(("-i", "-o"), _lint_interface),
    **dict.fromkeys(("--dports", "--sports", "--ports"), _lint_port_list),
    **dict.fromkeys(("--dport", "--sport"), _lint_port_range),
    **dict.fromkeys(("--comment", "--log-prefix", "--nflog-prefix", "--name", "--hashlimit-name"), _lint_quotes),
}


def _lint_comment(rule: Addition, view: RuleView) -> Iterator[Finding]:
    length = len((view.value("--comment") or "").encode())
    if length > LONGEST_COMMENT:
        message = f"the comment has {length} bytes; the kernel keeps {LONGEST_COMMENT}"
        yield _warning("comment-too-long", message, rule, "shorten it, or write it as a # comment in this file")


def _lint_dates(rule: Addition, view: RuleView, now: datetime | None) -> Iterator[Finding]:
    stop = _moment(view.value("--datestop"))
    start = _moment(view.value("--datestart"))
    if stop is None:
        return
    if start is not None and stop < start:
        message = "the rule matches no packet: --datestop is before --datestart"
        yield _warning("time-passed", message, rule, "exchange the two dates")
    elif now is not None and stop < now:
        message = f"the rule has matched no packet since {stop:%Y-%m-%d}, its --datestop"
        yield _warning("time-passed", message, rule, "remove the rule, or correct the date")


def _moment(value: str | None) -> datetime | None:
    """The moment that a date of the match ``time`` means. What is left out is the beginning of the year, month or day
    (iptables-extensions(8))."""
    match = _MOMENT.fullmatch(value or "")
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups(default="0"))
    try:
        return datetime(year, month or 1, day or 1, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def _lint_targets(rule: Addition, view: RuleView) -> Iterator[Finding]:
    if view.target == "MASQUERADE" and rule.families == BOTH:
        message = "MASQUERADE for both families: IPv6 connections get the address of this host too"
        hint = "write -4 before -A; if IPv6 is meant too, write one rule with -4 and one with -6"
        yield _warning("nat-both-families", message, rule, hint)
    if not read_conditions(view):
        yield from _lint_catch_all(rule, view)


def _ends_tracking(view: RuleView) -> bool:
    return view.target == "NOTRACK" or (view.target == "CT" and view.has("--notrack"))


def _lint_catch_all(rule: Addition, view: RuleView) -> Iterator[Finding]:
    """A rule for every packet."""
    if view.target == "TRACE":
        message = "TRACE for every packet: each rule that a packet meets makes a line in a log"
        yield _warning("trace-everything", message, rule, "name the packets to trace, as in -p tcp --dport 80")
    elif _ends_tracking(view):
        message = "no packet is tracked: rules with connection states, and NAT, do not match any more"
        yield _warning("notrack-everything", message, rule, "name the packets that need no tracking")


def _warning(code: str, message: str, statement: Addition | Declaration, hint: str) -> Finding:
    return Finding(code, message, statement.origin, Severity.WARNING, hint)
