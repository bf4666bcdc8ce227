"""Messages and hints for errors of iptables that depend on what the error and the rule say.

Each function gets the match of the pattern in `fwguardd.ruleset.error_reasons`, and the text of the rule.

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fwguardd.ruleset.rule_view import RuleView, target_of
from fwguardd.ruleset.suggestions import (
    MATCHES,
    OPTIONS,
    OWNERS,
    PROTOCOLS,
    TARGETS,
    XTABLES_ADDONS,
    how_to_get_addon,
    nearest_name,
)
from fwguardd.ruleset.values import MOST_PORTS, how_to_split, ports_counted

if TYPE_CHECKING:
    from collections.abc import Mapping

_RANGE = re.compile(r"(?<![^ ,])([0-9]{1,9}):([0-9]{1,9})(?![^ ,])")
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


def _write(name: str, otherwise: str) -> str:
    if not name:
        return otherwise
    return f"write {name}"


def match_message(match: re.Match[str], _rule: str) -> str:
    """There is no such match, or it belongs to xtables-addons."""
    if match[1] in XTABLES_ADDONS:
        return f'"{match[1]}" is a match of xtables-addons, which is not installed'
    return f'there is no match "{match[1]}"'


def match_hint(match: re.Match[str], _rule: str) -> str:
    """What to write for an unknown match."""
    if match[1] in XTABLES_ADDONS:
        return how_to_get_addon(match[1])
    return _write(
        nearest_name(match[1], MATCHES),
        "check the name after -m; iptables-extensions(8) lists all matches",
    )


def set_hint(match: re.Match[str], _rule: str) -> str:
    """What to do about an ipset of the other family."""
    number = int(match[2][-1])
    return f"write -{number} before the rule; for IPv{10 - number} name another set"


def range_hint(match: re.Match[str], _rule: str) -> str:
    """The range of a value, if iptables names it."""
    if match[2] is None:
        return "correct it; iptables-extensions(8) lists the valid values"
    return f"write a number from {match[2].replace('-', ' to ', 1)}"


def ordered_range_hint(_match: re.Match[str], rule: str) -> str:
    """The range with its numbers in order."""
    for first, last in _RANGE.findall(rule):
        if int(first) > int(last):
            return f"write the smaller number first: {last}:{first}"
    return "write the smaller number first"


def port_hint(match: re.Match[str], _rule: str) -> str:
    """How to write the port, the range or the list."""
    port = match[1]
    if _is_octal(port):
        return f"a number that begins with 0 is octal: write {port.lstrip('0') or '0'}"
    if "," in port:
        return f'for several ports write "-m multiport --dports {port}"'
    if re.fullmatch(r"[0-9]+-[0-9]+", port):
        return f"a range is written {port.replace('-', ':')}"
    return "correct the port"


def _is_octal(port: str) -> bool:
    return port.isdecimal() and port.startswith("0")


def split_hint(_match: re.Match[str], rule: str) -> str:
    """The rules that too many ports make."""
    for option in RuleView.of(rule).options:
        if option.name in ("--dports", "--sports", "--ports") and ports_counted(option.value) > MOST_PORTS:
            return how_to_split(option.name, option.value)
    return "split it into two rules"


def _owner_hint(owner: str, rule: str) -> str:
    """Where to write the match, target or protocol that an option belongs to."""
    protocol = RuleView.of(rule).value("-p")
    if owner.startswith("-p ") and protocol:
        return f'write "{owner}" in place of "-p {protocol}"'
    return f'write "{owner}" before it'


def option_hint(match: re.Match[str], rule: str) -> str:
    """What an unknown option belongs to, or the option that was meant."""
    if match[1] == "--port":
        return "write --dport for the destination port, --sport for the source port"
    if owner := OWNERS.get(match[1]):
        return _owner_hint(owner, rule)
    otherwise = "check its spelling; the -m or -j that it belongs to must stand before it"
    return _write(nearest_name(match[1], OPTIONS), otherwise)


def argument_hint(match: re.Match[str], rule: str) -> str:
    """What a word that belongs to no option was meant for."""
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
        (rule.startswith(f"{word} "), "the name of a chain is one word: write it without blanks"),
        (_second_word_of_target(rule, word), "the name of a chain is one word: write it without blanks"),
    )
    for applies, hint in hints:
        if applies:
            return hint
    return 'put text with spaces in double quotes, and check for a missing "-" or "--"'


def _second_word_of_target(rule: str, word: str) -> bool:
    return re.search(rf"-[jg] [^ ]+ {re.escape(word)}(?: |$)", rule) is not None


def address_hint(match: re.Match[str], _rule: str) -> str:
    """How to write the address, the range or the network."""
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


def name_hint(match: re.Match[str], _rule: str) -> str:
    """What to write for a host name."""
    if match[1].lower() in ("any", "all", "anywhere", "*"):
        return "leave the option out: without it any address matches"
    return "write the address instead: a firewall must load before the network is up"


def protocol_hint(match: re.Match[str], _rule: str) -> str:
    """The protocol that was meant."""
    if re.search(r"[,/]", match[1]):
        return "write a rule for each protocol"
    return _write(nearest_name(match[1], PROTOCOLS), "write a name of /etc/protocols, or a number")


def value_message(match: re.Match[str], _rule: str) -> str:
    """Which value is not valid."""
    if match[1]:
        return f'"{match[2]}" is not a valid value for {match[1]}'
    return f'"{match[4]}" is not an address'


def interface_hint(match: re.Match[str], _rule: str) -> str:
    """The interface option that works in the chain."""
    other = {"-i": "-o", "-o": "-i"}[match[1]]
    return f"write {other}, or leave it out"


def repeated_message(match: re.Match[str], _rule: str) -> str:
    """Which option is given twice."""
    return f"{match[1] or match[2]} is given twice in one rule"


def repeated_hint(match: re.Match[str], _rule: str) -> str:
    """How to write what was meant by an option given twice."""
    if match[1] == "-j":
        return "write two rules"
    return "write two rules, or a list with commas"


def missing_message(_match: re.Match[str], rule: str) -> str:
    """Which object does not exist, if the rule names one."""
    view = RuleView.of(rule)
    if name := view.value("--nfacct-name"):
        return f'there is no nfacct object "{name}" on this host'
    if view.target == "CT" and (name := view.value("--timeout")):
        return f'there is no timeout policy "{name}" on this host'
    return "the kernel lacks a chain, a target or a match that this rule names"


def missing_hint(_match: re.Match[str], rule: str) -> str:
    """How to make the object that does not exist."""
    view = RuleView.of(rule)
    if name := view.value("--nfacct-name"):
        return f'create it, now and before fwguardd at boot: "nfacct add {name}"'
    if view.target == "CT" and (name := view.value("--timeout")):
        return f'create it, now and before fwguardd at boot: "nfct add timeout {name} inet tcp established 3600"'
    return "check the spelling, and that the kernel has the module"


def kernel_message(_match: re.Match[str], rule: str) -> str:
    """What the kernel refuses."""
    if _resets_other_protocols(rule):
        return "tcp-reset works for TCP only"
    return "the kernel refuses this rule in this chain"


def kernel_hint(_match: re.Match[str], rule: str) -> str:
    """Where the target works, or what it needs."""
    if _resets_other_protocols(rule):
        return "write -p tcp, or another type"
    target = target_of(rule) or ""
    if target in _CHAINS_OF_TARGETS:
        return f"{target} works in {_CHAINS_OF_TARGETS[target]}"
    return "its target or one of its matches works only in other tables or chains; see iptables-extensions(8)"


def _resets_other_protocols(rule: str) -> bool:
    view = RuleView.of(rule)
    return view.value("--reject-with") == "tcp-reset" and view.value("-p") not in ("tcp", "6")
