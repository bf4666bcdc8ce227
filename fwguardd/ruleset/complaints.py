"""What iptables-restore says when it refuses a text -> which line it means, and what that is in plain words.

The shapes are those of 1.8.9, both backends, and of the other 1.8 versions; whatever matches none of them is passed
on in the tool's own words. A complaint may name no line, or the line of COMMIT, or (nft, for a chain that does not
exist) the line after: `Complaint.line` is then None or only a hint, and the rehearsal finds the rule by trying.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fwguardd.ruleset.families import is_free_text
from fwguardd.ruleset.meant import how_to_declare, nearest_target
from fwguardd.ruleset.model import VERDICTS
from fwguardd.ruleset.words import UnterminatedQuoteError, word_values

if TYPE_CHECKING:
    from fwguardd.ruleset.model import Table

_LINES = (
    re.compile(r"^line ([0-9]+): ([A-Z_]+ failed .*)$", re.MULTILINE),
    re.compile(r"Error occurred at line: ([0-9]+)"),
    re.compile(r"line:? ([0-9]+) failed(?:: (.*))?"),
    re.compile(r"line ([0-9]+)\b"),
)
_PROGRAM = re.compile(
    r"^ip6?tables(?:-nft|-legacy)?-restore(?: v[0-9][^ ]*)?(?: \([a-z_]+\))?: ?(?:ip6?tables[a-z-]*-restore: )?"
)
_NOISE = re.compile(r"^(?:Error occurred at line: [0-9]+|Try `.*' for more information\.|# Warning: .*)?$")
_MISSING_CHAIN = (re.compile(r"Chain '([^']+)' does not exist"), re.compile(r"Couldn't load target `([^']+)'"))

_JUMPS = frozenset({"-j", "--jump", "-g", "--goto"})
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_JUMP = re.compile(r"(?:^|[ \t])(?:-j|--jump|-g|--goto)[ \t]+([^ \t]+)")

_PLAIN_WORDS: tuple[tuple[re.Pattern[str], str, str, str], ...] = (
    (
        re.compile(r"Too many links"),
        "jumps-too-deep",
        "the jumps that lead here are nested too deeply for the kernel",
        "call fewer chains from chains; 16 deep is the limit of nf_tables",
    ),
    (
        re.compile(r"Couldn't load match `([^']+)'"),
        "unknown-match",
        'there is no match "{0}"',
        "check its spelling after -m; iptables-extensions(8) lists them all",
    ),
    (
        re.compile(r"Set ([^ ]+) doesn't exist"),
        "unknown-set",
        'the ipset "{0}" does not exist here',
        "create it before the rules are loaded",
    ),
    (
        re.compile(r"host/network `([^']+)' not found"),
        "unresolvable-name",
        'the name "{0}" cannot be resolved to an address of this family',
        "write the address instead: a firewall must load before the network is up",
    ),
    (
        re.compile(r"invalid port/service `([^']+)' specified"),
        "bad-port",
        '"{0}" is neither a port (0 to 65535) nor a service of /etc/services',
        "correct the port",
    ),
    (
        re.compile(r'unknown option "(--[sd]ports?|--[sd]port|--source-ports?|--destination-ports?)"'),
        "port-without-protocol",
        "{0} without a protocol",
        "write -p tcp or -p udp before it",
    ),
    (
        re.compile(r'unknown option "([^"]+)"'),
        "unknown-option",
        'nothing in this rule knows the option "{0}"',
        "check its spelling, and that the -m or -j that it belongs to stands before it",
    ),
    (
        re.compile(r"Bad argument `([^']*)'"),
        "bad-argument",
        '"{0}" belongs to no option',
        'put text with spaces in double quotes, and check for a missing "--"',
    ),
    (
        re.compile(r"multiple (-[a-z]) flags not allowed"),
        "repeated-option",
        "{0} is said twice in one rule",
        "write two rules, or a list with commas",
    ),
    (
        re.compile(r"Extension ([^ ]+) revision [0-9]+ not supported, missing kernel module"),
        "missing-extension",
        "the kernel has no module for {0}",
        "load it, or do without",
    ),
    (
        re.compile(r"Invalid argument|Operation not supported|^line [0-9]+ failed$"),
        "refused-by-kernel",
        "the kernel refuses this rule in this chain",
        "a target or match in it works only in other tables or chains; iptables-extensions(8) names them",
    ),
    (
        re.compile(r"No chain/target/match by that name|No such file or directory"),
        "missing-extension",
        "the kernel lacks a chain, a target or a match that this rule names",
        "check the spelling, and that the kernel has the module",
    ),
    (
        re.compile(r"Message too long|No buffer space|Cannot allocate memory"),
        "too-large",
        "the kernel had no room for so many rules at once",
        "try again, or with the privilege to raise the limit",
    ),
)


@dataclass(frozen=True, slots=True)
class Complaint:
    """A refusal: the line that the tool names, if any; its own words without noise; and whether the line is for certain
    that of the guilty rule, or only where the tool stood when it noticed."""

    line: int | None
    words: str
    names_rule: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """A refusal for people: a stable code, a sentence, and what to do."""

    code: str
    message: str
    hint: str


def read_complaint(stderr: str) -> Complaint:
    """What a failed iptables-restore meant by its standard error. Never raises."""
    line: int | None = None
    for pattern in _LINES:
        match = pattern.search(stderr)
        if match:
            line = int(match[1][:9])
            break
    missing_chain = "does not exist" in stderr
    said = [_PROGRAM.sub("", text).strip() for text in stderr.splitlines()]
    words = "; ".join(text for text in said if not _NOISE.match(text))
    return Complaint(
        line, words or "iptables-restore gave no reason", names_rule=line is not None and not missing_chain
    )


def explain(complaint: Complaint, rule: str, loop: tuple[str, ...] = (), table: Table | None = None) -> Explanation:
    """The plain words for a complaint about this rule text. ``loop`` is the loop of chains that the rule closes, and
    ``table`` the one that it is in."""
    for pattern in _MISSING_CHAIN:
        match = pattern.search(complaint.words)
        if match:
            return _missing_chain(match[1], table)
    if loop:
        message = f"the jump closes a loop of chains: {' → '.join(loop)}"
        return Explanation("chain-loop", message, "remove one of the jumps")
    for pattern, code, message, hint in _PLAIN_WORDS:
        match = pattern.search(complaint.words)
        if match:
            return Explanation(code, message.format(*match.groups()), hint)
    hint = f"iptables-extensions(8) tells what {jump_target(rule) or 'each option'} allows"
    return Explanation("refused", f"iptables refuses it: {complaint.words}", hint)


def _missing_chain(target: str, table: Table | None) -> Explanation:
    message = f"jump to chain {target}, which no file declares, and no target has that name"
    how = f'"{how_to_declare(target, table.name if table else "filter")}"'
    meant = nearest_target(target, table.chains if table else ())
    if meant:
        return Explanation("undeclared-chain", message, f"write {meant} if you mean that, or declare the chain: {how}")
    return Explanation("undeclared-chain", message, f"declare it: {how}; or correct its spelling")


def jump_target(rule: str) -> str | None:
    """The word after -j or -g in a rule's text, if it is a chain or an extension; None for none and for a verdict."""
    plain = rule if '"' not in rule else _QUOTED.sub('""', rule)
    if '"' in plain.replace('""', ""):
        return None  # A quote stays open: nothing after it is what it seems.
    match = _JUMP.search(plain)
    if match is None or ('"' not in match[1] and " --comment -" not in plain):
        return match[1] if match and match[1] not in VERDICTS else None
    try:
        words = word_values(rule)
    except UnterminatedQuoteError:
        return None
    for place in range(1, len(words)):
        if words[place - 1] in _JUMPS and not is_free_text(words, place - 1):
            return None if words[place] in VERDICTS else words[place]
    return None
