"""Errors of rules that iptables surely reports, found without iptables: for ``check --static``.

Ports that are too large, addresses that are none, connection states that do not exist, and options that no match or
target of the rule has. Only what every iptables refuses is reported; the options are looked at where all matches of a
rule, its protocol and its target are in the tables below (iptables-extensions(8), and what old versions still read).

The words are those of iptables, so that an error reads as it does after a rehearsal.

This module is pure.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.error_reasons import explain_words
from fwguardd.ruleset.model import VERDICTS, Family, Finding, Findings
from fwguardd.ruleset.rule_view import CORE_LONG_OPTIONS, RuleView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fwguardd.ruleset.model import Candidate, Rule, Table
    from fwguardd.ruleset.rule_view import Option

_PORTS = ("--sport", "--dport", "--source-port", "--destination-port")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "tcp": (*_PORTS, "--syn", "--tcp-flags", "--tcp-option"),
    "udp": _PORTS,
    "icmp": ("--icmp-type",),
    "icmp6": ("--icmpv6-type",),
    "conntrack": (
        *("--ctstate", "--ctproto", "--ctorigsrc", "--ctorigdst", "--ctreplsrc", "--ctrepldst", "--ctorigsrcport"),
        *("--ctorigdstport", "--ctreplsrcport", "--ctrepldstport", "--ctstatus", "--ctexpire", "--ctdir"),
    ),
    "state": ("--state",),
    "multiport": ("--sports", "--source-ports", "--dports", "--destination-ports", "--ports"),
    "limit": ("--limit", "--limit-burst"),
    "comment": ("--comment",),
    "mac": ("--mac-source",),
    "iprange": ("--src-range", "--dst-range"),
    "owner": (
        *("--uid-owner", "--gid-owner", "--pid-owner", "--sid-owner", "--cmd-owner", "--socket-exists"),
        "--suppl-groups",
    ),
    "mark": ("--mark",),
    "addrtype": ("--src-type", "--dst-type", "--limit-iface-in", "--limit-iface-out"),
    "recent": (
        *("--set", "--rcheck", "--update", "--seconds", "--reap", "--hitcount", "--remove", "--rttl", "--name"),
        *("--rsource", "--rdest", "--mask"),
    ),
    "set": (
        *("--match-set", "--set", "--return-nomatch", "--update-counters", "--update-subcounters", "--packets-eq"),
        *("--packets-lt", "--packets-gt", "--bytes-eq", "--bytes-lt", "--bytes-gt"),
    ),
}
"""The options of matches."""

_TARGET_OPTIONS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(VERDICTS, ()),
    "LOG": (
        *("--log-level", "--log-prefix", "--log-tcp-sequence", "--log-tcp-options", "--log-ip-options", "--log-uid"),
        "--log-macdecode",
    ),
    "REJECT": ("--reject-with",),
    "MASQUERADE": ("--to-ports", "--random", "--random-fully"),
    "REDIRECT": ("--to-ports", "--random"),
}
"""The options of targets."""

_PROTOCOLS = {
    "all": (),
    "tcp": ("tcp",),
    "udp": ("udp",),
    "icmp": ("icmp",),
    "icmpv6": ("icmp6",),
    "ipv6-icmp": ("icmp6",),
}
"""The matches that a protocol loads by itself."""

_RANGES = frozenset({"--sport", "--dport"})
_STATES = {
    "--state": ("INVALID", "NEW", "ESTABLISHED", "RELATED", "UNTRACKED"),
    "--ctstate": ("INVALID", "NEW", "ESTABLISHED", "RELATED", "UNTRACKED", "SNAT", "DNAT"),
}
_FOUR_NUMBERS = pattern(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*)){3}")
_SIX = pattern(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_LARGE = pattern(r"[1-9][0-9]{4,}")
_BITS = pattern(r"[1-9][0-9]{1,9}")


def static_errors(candidate: Candidate) -> Findings:
    """The errors of the rules, at their lines."""
    found: list[Finding] = []
    for family, ruleset in candidate.rulesets.items():
        for table in ruleset.tables.values():
            for chain in table.chains.values():
                for rule in chain.rules:
                    found += _errors_of(rule, family, table)
    return Findings(found)


def _errors_of(rule: Rule, family: Family, table: Table) -> Iterator[Finding]:
    """The first error of a rule: iptables reports no more either."""
    view = RuleView.of(rule.text)
    words = next(_complaints(view, table), "")
    explanation = words and explain_words(words, rule.text)
    if explanation:
        code, message, hint = explanation.code, explanation.message, explanation.hint
        yield Finding(code, message, rule.origin, hint=hint, family=family)


def _complaints(view: RuleView, table: Table) -> Iterator[str]:
    """What iptables would say about the rule."""
    for option in view.options:
        look = _LOOKS.get(option.name)
        if look is not None and not _is_cut(option, view):
            yield from look(option)
    known = _known_options(view, table)
    if known:
        yield from _unknown_options(view, known)


def _unknown_options(view: RuleView, known: tuple[str, ...]) -> Iterator[str]:
    """What iptables would say about long options that are no beginning of a known one."""
    for option in view.options:
        if option.name.startswith("--") and not any(each.startswith(option.name) for each in known):
            yield f'unknown option "{option.name}"'


def _is_cut(option: Option, view: RuleView) -> bool:
    """Whether iptables takes a port that is too large for the rest of a division by 65536: in a range of a protocol
    other than tcp (parse_udp_ports() in extensions/libxt_udp.c of iptables 1.8.9)."""
    return option.name in _RANGES and ":" in option.value and view.value("-p") != "tcp"


def _known_options(view: RuleView, table: Table) -> tuple[str, ...]:
    """The long options that the rule may have; nothing where a match, the protocol or the target is not known here."""
    of_target = _options_of_target(view.target or "ACCEPT", table)
    modules = _modules(view)
    if of_target is None or modules is None or not modules <= _OPTIONS.keys():
        return ()
    known = [*CORE_LONG_OPTIONS, *of_target]
    for module in modules:
        known += _OPTIONS[module]
    return tuple(known)


def _options_of_target(target: str, table: Table) -> tuple[str, ...] | None:
    """The options of a target, a chain has none; None where they are not known."""
    if target in table.chains:
        return ()
    return _TARGET_OPTIONS.get(target)


def _modules(view: RuleView) -> set[str] | None:
    """The matches of a rule, that of its protocol included; None where the protocol is not known."""
    modules = {option.value for option in view.options if option.name == "-m"}
    protocol = view.option("-p")
    if protocol is None or protocol.negated:
        return modules
    if protocol.value not in _PROTOCOLS:
        return None
    return modules.union(_PROTOCOLS[protocol.value])


def _ports(option: Option) -> Iterator[str]:
    """A port that is too large: in a list, or at an end of a range."""
    for word in option.value.replace(":", ",").split(","):
        if _is_too_large(word):
            yield f"invalid port/service `{word}' specified"


def _to_ports(option: Option) -> Iterator[str]:
    """The same behind --to-ports."""
    for word in option.value.split("-"):
        if _is_too_large(word):
            yield f"Port `{word}' not valid"


def _is_too_large(word: str) -> bool:
    return _LARGE.fullmatch(word) is not None and int(word[:9]) > 65_535


def _addresses(option: Option) -> Iterator[str]:
    """An address that is none, or a network with more bits than an address has. Names, and the short and octal forms
    that inet_aton(3) reads, are left to iptables."""
    for word in option.value.split(","):
        address, _, mask = word.partition("/")
        bits = _bits_of(address)
        if not bits:
            continue
        if not _is_address(address):
            yield f"host/network `{address}' not found"
        elif _BITS.fullmatch(mask) is not None and int(mask) > bits:
            yield f"invalid mask `{mask}' specified"


def _bits_of(address: str) -> int:
    """The bits of an address of this form; 0 for what is not meant as one in full."""
    if _FOUR_NUMBERS.fullmatch(address) is not None:
        return 32
    if _SIX.fullmatch(address) is not None:
        return 128
    return 0


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _states(option: Option) -> Iterator[str]:
    """A state that does not exist. iptables reads any beginning of a name, in small letters too."""
    for word in option.value.split(","):
        meant = word.upper()
        if word and not any(state.startswith(meant) for state in _STATES[option.name]):
            yield f'Bad {option.name[2:]} "{word}"'


_LOOKS: Mapping[str, Callable[[Option], Iterator[str]]] = {
    **dict.fromkeys(("--sport", "--dport", "--sports", "--dports", "--ports"), _ports),
    "--to-ports": _to_ports,
    **dict.fromkeys(("-s", "-d"), _addresses),
    **dict.fromkeys(_STATES, _states),
}
"""What is looked for in the value of an option."""
