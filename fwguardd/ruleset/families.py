"""Which families a rule can mean: both, unless a word in it exists in one of them only.

A word tells a family when it is an address literal, an ICMP protocol, a reject type, or an extension that iptables
or ip6tables alone has (the ``libipt_`` and ``libip6t_`` modules of xtables, and osf). Words that are free text, such
as a comment or a log prefix, tell nothing. Options may be cut short, as getopt_long(3) has it.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import TYPE_CHECKING

from fwguardd.ruleset.model import BOTH, Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

IPV4_ONLY = frozenset({Family.IPV4})
IPV6_ONLY = frozenset({Family.IPV6})


def _cut_short(names: Iterable[str], shortest: int) -> Iterable[str]:
    """The names, and each of them cut short down to so many characters."""
    return {name[:end] for name in names for end in range(min(shortest, len(name)), len(name) + 1)}


_PROSE = ("--comment", "--log-prefix", "--nflog-prefix", "--ulog-prefix", "--string", "--hex-string")
PROSE_OPTIONS = frozenset(_cut_short(_PROSE, 6))
"""Options whose argument is a text for people, or bytes to look for."""

FREE_TEXT_OPTIONS = frozenset(
    {"--name", "--helper", "--hashlimit-name", "--match-set", "--add-set", "--del-set", "--map-set", "--bytecode"}
    | {"--object-pinned", "--nfacct-name", "--u32", "--label", "--set-label", "--path", "--genre", "--led-trigger-id"}
    | {"--rateest-name", "--rateest1", "--rateest2", "--selctx", "--timeout", "--realm"}
    | {"-i", "-o", "--in-interface", "--out-interface", "--physdev-in", "--physdev-out"}
    | PROSE_OPTIONS
)
"""Options whose argument is a name or prose: nothing in it says anything about the rule."""

_MODULES = {
    **dict.fromkeys(("icmp", "osf", "realm", "ttl"), IPV4_ONLY),
    **dict.fromkeys(
        ("icmp6", "icmpv6", "eui64", "frag", "hbh", "hl", "ipv6header", "mh", "rt", "srh", "dst"), IPV6_ONLY
    ),
}
_TARGETS = {
    **dict.fromkeys(("TTL", "CLUSTERIP", "ECN", "ULOG"), IPV4_ONLY),
    **dict.fromkeys(("HL", "DNPT", "SNPT"), IPV6_ONLY),
}
_PROTOCOLS = {
    "icmp": IPV4_ONLY,
    **dict.fromkeys(("icmpv6", "ipv6-icmp", "icmp6", "ipv6-mh", "mobility-header"), IPV6_ONLY),
}
_REJECT_TYPES = {
    **dict.fromkeys(
        ("net-unreach", "host-unreach", "proto-unreach", "net-prohib", "host-prohib", "admin-prohib"), IPV4_ONLY
    ),
    **dict.fromkeys(("no-route", "adm-prohibited", "addr-unreach", "policy-fail", "reject-route"), IPV6_ONLY),
}
_BY_ARGUMENT: Mapping[str, Mapping[str, frozenset[Family]]] = {
    **dict.fromkeys(("-p", "--proto", *_cut_short(("--protocol",), 4)), _PROTOCOLS),
    **dict.fromkeys(("-m", *_cut_short(("--match",), 4)), _MODULES),
    **dict.fromkeys(("-j", "-g", *_cut_short(("--jump", "--goto"), 3)), _TARGETS),
    **dict.fromkeys(_cut_short(("--reject-with",), 4), _REJECT_TYPES),
}
_ADDRESS_OPTIONS = frozenset(("-s", "-d", *_cut_short(("--source", "--src", "--destination", "--dst"), 3)))
_BY_OPTION: Mapping[str, frozenset[Family]] = {
    **dict.fromkeys(("--icmp-type", "--fragment", "--fragments", "--ttl-set", "--ttl-eq"), IPV4_ONLY),
    **dict.fromkeys(("--icmpv6-type", "--mh-type", "--hl-set", "--hl-eq"), IPV6_ONLY),
}

# An option that tells a family, or whose argument does, matches this; most rules hold none, and no address either.
_TELLING_OPTION = re.compile(
    r" -(?:f|[sd] |p +[IiMm][CcPpOo]|m *=?(?:icmp|osf|realm|ttl|eui64|frag|hbh|hl|ipv6header|mh|rt|srh|dst)"
    r"|[jg] *(?:TTL|CLUSTERIP|ECN|ULOG|HL|DNPT|SNPT)|-(?:re|hl-|ttl-|icmp|fragment|mh-"
    r"|(?:s|sr|src|so[urce]*|d|ds|dst|de[stination]*) |p[rotcl]* *=?[IiMm][CcPpOo]"
    r"|ma[tch]* *=?[a-z]|[jg][a-z]* *=?[A-Z]))"
)
_IPV4 = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+(?![^-/:])")
_IPV4_CUT_SHORT = re.compile(r"[0-9]+(?:\.[0-9]+){0,2}(?![^/])")
_MAYBE_IPV6 = re.compile(r"\[?([0-9A-Fa-f:.]+(?:%[^]/ -]*)?)(?![^]/-])")


_FAMILIES: Mapping[frozenset[Family], frozenset[Family]] = {
    told: told for told in (BOTH, IPV4_ONLY, IPV6_ONLY, frozenset())
}
"""The sets by their value, so that they can be compared by `is`."""


@dataclass(frozen=True, slots=True)
class MixedFamilies:
    """Two words of one rule that cannot both hold: the first word of each family."""

    ipv4_word: str
    ipv6_word: str


def narrowed(families: frozenset[Family], told: frozenset[Family]) -> frozenset[Family]:
    """Both conditions at once; empty where they exclude each other."""
    if families == BOTH:
        return told
    return families if told in (BOTH, families) else _FAMILIES[families & told]


def families_of_name(name: str) -> frozenset[Family]:
    """The families that a rule file's name allows: ``x.v4.rules``, ``x.v6.rules``, or both."""
    if name.endswith(".v4.rules"):
        return IPV4_ONLY
    return IPV6_ONLY if name.endswith(".v6.rules") else BOTH


def may_tell_family(text: str) -> bool:
    """Whether any word of the rule text could tell a family; a quick look that errs on the side of yes."""
    return (
        "." in text
        or text.count(":") > 1
        or '"' in text
        or "\t" in text
        or _TELLING_OPTION.search(f" {text}") is not None
    )


def is_free_text(words: Sequence[str], place: int) -> bool:
    """Whether the word is the argument of an option whose argument is a name or prose."""
    return _free_options_before(words, place) % 2 == 1


def is_plainly_free_text(words: Sequence[str], place: int) -> bool:
    """As `is_free_text`, and the option cannot itself be the argument of the word before it, whatever that is."""
    run = _free_options_before(words, place)
    return run % 2 == 1 and (run == place or words[place - run - 1][:1] != "-")


def _free_options_before(words: Sequence[str], place: int) -> int:
    """How many options of free text stand in a row before the word. Of each two the second is what the first takes."""
    start = place
    while start and words[start - 1] in FREE_TEXT_OPTIONS:
        start -= 1
    return place - start


def infer_families(words: Sequence[str]) -> frozenset[Family] | MixedFamilies:
    """The families that a rule with these words can mean."""
    ipv4_word = ipv6_word = ""
    option = ""
    for word in words:
        if option in FREE_TEXT_OPTIONS:
            option = ""
            continue
        told = _families_of(option, word)
        if told is IPV4_ONLY:
            ipv4_word = ipv4_word or word
        elif told is IPV6_ONLY:
            ipv6_word = ipv6_word or word
        elif told is not BOTH:
            return MixedFamilies(word, word)
        option = word
    if ipv4_word and ipv6_word:
        return MixedFamilies(ipv4_word, ipv6_word)
    if ipv4_word:
        return IPV4_ONLY
    return IPV6_ONLY if ipv6_word else BOTH


def _families_of(option: str, word: str) -> frozenset[Family]:
    """What one word tells; the empty set when a list inside it holds addresses of both families."""
    if word[:1] == "-":
        return _option_told(word)
    arguments = _BY_ARGUMENT.get(option)
    if arguments is not None:
        return _argument_told(arguments, word)
    if option in _ADDRESS_OPTIONS:
        return _addresses_told(word, cut_short=True)
    return _addresses_told(word) if "." in word or ":" in word else BOTH


def _option_told(word: str) -> frozenset[Family]:
    """What an option tells, with the value that is attached to it, if any."""
    if word[1:2] != "-":
        if word[:2] == "-f":
            return IPV4_ONLY
        arguments = _BY_ARGUMENT.get(word[:2])
        return BOTH if arguments is None else _argument_told(arguments, word[2:])
    option, equals, value = word.partition("=")
    if option in _BY_OPTION:
        return _BY_OPTION[option]
    if not equals or option in FREE_TEXT_OPTIONS or value[:1] == "-":
        return BOTH
    return _families_of(option, value)


def _argument_told(arguments: Mapping[str, frozenset[Family]], word: str) -> frozenset[Family]:
    if arguments is _PROTOCOLS:
        word = word.lower()  # iptables takes -p ICMP too.
    if arguments is _REJECT_TYPES and word.startswith(("icmp6-", "icmp-")):
        return IPV6_ONLY if word.startswith("icmp6-") else IPV4_ONLY
    return arguments.get(word, BOTH)


def _addresses_told(word: str, *, cut_short: bool = False) -> frozenset[Family]:
    """The family of an address, network, range, address with port, or a list of these; both for anything else."""
    told = BOTH
    for part in word.split(","):
        if _IPV4.match(part) or (cut_short and _IPV4_CUT_SHORT.match(part)):
            told &= IPV4_ONLY
        elif _is_ipv6(part):
            told &= IPV6_ONLY
    return _FAMILIES[told]


def _is_ipv6(text: str) -> bool:
    match = _MAYBE_IPV6.match(text)
    if match is None or ":" not in match[1]:
        return False
    try:
        IPv6Address(match[1])
    except AddressValueError:
        return False
    return True
