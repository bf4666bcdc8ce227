"""The families that a rule is for: both, unless a word in it is valid in one of them only.

A word implies a family when it is an address literal, an ICMP protocol, a reject type, or an extension that only
iptables or only ip6tables has (the ``libipt_`` and ``libip6t_`` modules of xtables, and osf). Free text, such as a
comment or a log prefix, implies nothing. Long options may be abbreviated, as for getopt_long(3).

This module is pure.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv6Address
from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.model import BOTH, Family
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

IPV4_ONLY = frozenset({Family.IPV4})
IPV6_ONLY = frozenset({Family.IPV6})


def _abbreviations(names: Iterable[str], shortest: int) -> Iterable[str]:
    """The names and their abbreviations of at least so many characters."""
    return {name[:end] for name in names for end in range(min(shortest, len(name)), len(name) + 1)}


_PROSE = ("--comment", "--log-prefix", "--nflog-prefix", "--ulog-prefix", "--string", "--hex-string")
PROSE_OPTIONS = frozenset(_abbreviations(_PROSE, 6))
"""Options whose argument is text for readers, or bytes to search for."""

FREE_TEXT_OPTIONS = frozenset(
    {"--name", "--helper", "--hashlimit-name", "--match-set", "--add-set", "--del-set", "--map-set", "--bytecode"}
    | {"--object-pinned", "--nfacct-name", "--u32", "--label", "--set-label", "--path", "--genre", "--led-trigger-id"}
    | {"--rateest-name", "--rateest1", "--rateest2", "--selctx", "--timeout", "--realm"}
    | {"-i", "-o", "--in-interface", "--out-interface", "--physdev-in", "--physdev-out"}
    | PROSE_OPTIONS
)
"""Options whose argument is a name or prose. Nothing in it is an option, an address or a comment."""

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
    **dict.fromkeys(("-p", "--proto", *_abbreviations(("--protocol",), 4)), _PROTOCOLS),
    **dict.fromkeys(("-m", *_abbreviations(("--match",), 4)), _MODULES),
    **dict.fromkeys(("-j", "-g", *_abbreviations(("--jump", "--goto"), 3)), _TARGETS),
    **dict.fromkeys(_abbreviations(("--reject-with",), 4), _REJECT_TYPES),
}
_ADDRESS_OPTIONS = frozenset(("-s", "-d", *_abbreviations(("--source", "--src", "--destination", "--dst"), 3)))
_BY_OPTION: Mapping[str, frozenset[Family]] = {
    **dict.fromkeys(("--icmp-type", "--fragment", "--fragments", "--ttl-set", "--ttl-eq"), IPV4_ONLY),
    **dict.fromkeys(("--icmpv6-type", "--mh-type", "--hl-set", "--hl-eq"), IPV6_ONLY),
}

# An option that implies a family, or whose argument does, matches this. Most rules have none, and no address either.
_IMPLYING_OPTION = pattern(
    r" -(?:f|[sd] |p +[IiMm][CcPpOo]|m *=?(?:icmp|osf|realm|ttl|eui64|frag|hbh|hl|ipv6header|mh|rt|srh|dst)"
    r"|[jg] *(?:TTL|CLUSTERIP|ECN|ULOG|HL|DNPT|SNPT)|-(?:re|hl-|ttl-|icmp|fragment|mh-"
    r"|(?:s|sr|src|so[urce]*|d|ds|dst|de[stination]*) |p[rotcl]* *=?[IiMm][CcPpOo]"
    r"|ma[tch]* *=?[a-z]|[jg][a-z]* *=?[A-Z]))"
)
_IPV4 = pattern(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+(?![^-/:])")
_IPV4_ABBREVIATED = pattern(r"[0-9]+(?:\.[0-9]+){0,2}(?![^/])")
_MAYBE_IPV6 = pattern(r"\[?([0-9A-Fa-f:.]+(?:%[^]/ -]*)?)(?![^]/-])")


_FAMILIES: Mapping[frozenset[Family], frozenset[Family]] = {
    families: families for families in (BOTH, IPV4_ONLY, IPV6_ONLY, frozenset())
}
"""The sets by their value, so that they can be compared by ``is``."""


@dataclass(frozen=True, slots=True)
class MixedFamilies:
    """Two words of one rule that contradict each other: the first of each family. They may be the same word."""

    ipv4_word: str
    ipv6_word: str


def narrowed(families: frozenset[Family], implied: frozenset[Family]) -> frozenset[Family]:
    """The families that are in both sets."""
    if families == BOTH:
        return implied
    if implied in (BOTH, families):
        return families
    return _FAMILIES[families & implied]


def families_of_name(name: str) -> frozenset[Family]:
    """The families that a rule file's name allows: ``x.v4.rules``, ``x.v6.rules``, or both."""
    if name.endswith(".v4.rules"):
        return IPV4_ONLY
    if name.endswith(".v6.rules"):
        return IPV6_ONLY
    return BOTH


def may_imply_family(text: str) -> bool:
    """Whether a word of the rule text may imply a family. A quick check: True may be wrong, False is certain."""
    return (
        "." in text
        or text.count(":") > 1
        or '"' in text
        or "\t" in text
        or _IMPLYING_OPTION.search(f" {text}") is not None
    )


def is_free_text(words: Sequence[str], place: int) -> bool:
    """Whether the word is the argument of an option whose argument is a name or prose."""
    return _free_options_before(words, place) % 2 == 1


def is_plainly_free_text(words: Sequence[str], place: int) -> bool:
    """As `is_free_text`, and the option cannot itself be the argument of the option before it."""
    run = _free_options_before(words, place)
    return run % 2 == 1 and (run == place or words[place - run - 1][:1] != "-")


def _free_options_before(words: Sequence[str], place: int) -> int:
    """The number of consecutive options of free text before the word. Of each pair, the second is an argument."""
    start = place
    while start and words[start - 1] in FREE_TEXT_OPTIONS:
        start -= 1
    return place - start


def infer_families(words: Sequence[str]) -> frozenset[Family] | MixedFamilies:
    """The families that a rule with these words is for."""
    ipv4_word = ipv6_word = option = ""
    for word in words:
        if option in FREE_TEXT_OPTIONS:
            option = ""
            continue
        families = _families_of(option, word)
        option = word
        if families is IPV4_ONLY:
            ipv4_word = ipv4_word or word
        elif families is IPV6_ONLY:
            ipv6_word = ipv6_word or word
        elif not families:
            return MixedFamilies(word, word)
    return _combined(ipv4_word, ipv6_word)


def _combined(ipv4_word: str, ipv6_word: str) -> frozenset[Family] | MixedFamilies:
    if ipv4_word and ipv6_word:
        return MixedFamilies(ipv4_word, ipv6_word)
    if ipv4_word:
        return IPV4_ONLY
    if ipv6_word:
        return IPV6_ONLY
    return BOTH


def _families_of(option: str, word: str) -> frozenset[Family]:
    """What one word implies. The empty set if it is a list that has addresses of both families."""
    if word[:1] == "-":
        return _families_of_option(word)
    arguments = _BY_ARGUMENT.get(option)
    if arguments is not None:
        return _families_of_argument(arguments, word)
    if option in _ADDRESS_OPTIONS:
        return _families_of_addresses(word, abbreviated=True)
    if "." in word or ":" in word:
        return _families_of_addresses(word)
    return BOTH


def _families_of_option(word: str) -> frozenset[Family]:
    """What an option implies, with the value that is attached to it, if any."""
    if word[1:2] != "-":
        return _families_of_short_option(word[:2], word[2:])
    option, equals, value = word.partition("=")
    if option in _BY_OPTION:
        return _BY_OPTION[option]
    if not equals or option in FREE_TEXT_OPTIONS or value[:1] == "-":
        return BOTH
    return _families_of(option, value)


def _families_of_short_option(option: str, value: str) -> frozenset[Family]:
    if option == "-f":
        return IPV4_ONLY
    arguments = _BY_ARGUMENT.get(option)
    if arguments is None:
        return BOTH
    return _families_of_argument(arguments, value)


def _families_of_argument(arguments: Mapping[str, frozenset[Family]], word: str) -> frozenset[Family]:
    if arguments is _PROTOCOLS:
        word = word.lower()  # iptables accepts -p ICMP too.
    if arguments is _REJECT_TYPES:
        return _families_of_reject_type(word)
    return arguments.get(word, BOTH)


def _families_of_reject_type(word: str) -> frozenset[Family]:
    if word.startswith("icmp-"):
        return IPV4_ONLY
    if word.startswith("icmp6-"):
        return IPV6_ONLY
    return _REJECT_TYPES.get(word, BOTH)


def _families_of_addresses(word: str, *, abbreviated: bool = False) -> frozenset[Family]:
    """The family of an address, network, range, address with port, or a list of these; both for anything else."""
    families = BOTH
    for part in word.split(","):
        if _IPV4.match(part) or (abbreviated and _IPV4_ABBREVIATED.match(part)):
            families &= IPV4_ONLY
        elif _is_ipv6(part):
            families &= IPV6_ONLY
    return _FAMILIES[families]


def _is_ipv6(text: str) -> bool:
    match = _MAYBE_IPV6.match(text)
    if match is None or ":" not in match[1]:
        return False
    try:
        IPv6Address(match[1])
    except AddressValueError:
        return False
    return True
