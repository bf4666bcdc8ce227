"""What does not belong in a rule file, though iptables would take it or look like it: refused, each with its reason.

Options that run a program as root (``--modprobe``), print a text and end with success instead of adding a rule
(``-h``, ``-V``), name a table, set counters, or ask for something (``-L``); values attached to their option, which
iptables-restore 1.8.9 misreads (``-ieth0`` is the interface "-ieth0" to it, with exit code 0); verbs that make sense in
a shell and none in a declaration; and characters that look like a dash, a quote or a space and are none, as web pages
have them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from fwguardd.ruleset.families import is_free_text, is_plainly_free_text
from fwguardd.ruleset.meant import OPTIONS
from fwguardd.ruleset.model import BUILTIN_CHAINS, POLICIES, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fwguardd.ruleset.words import Word

LONGEST_CHAIN_NAME = 28
"""Bytes of a chain name (XT_EXTENSION_MAXNAMELEN less the final NUL, linux/netfilter/x_tables.h)."""

IMPERATIVES = {
    **dict.fromkeys(("-D", "--delete"), "remove the line that adds the rule instead"),
    **dict.fromkeys(("-R", "--replace"), "edit the line that adds the rule instead"),
    **dict.fromkeys(("-F", "--flush"), "leave it out: only what the files say is in force, every time"),
    **dict.fromkeys(("-X", "--delete-chain"), "leave it out: a chain that no file declares is removed"),
    **dict.fromkeys(("-Z", "--zero"), "leave it out: counters are not part of a ruleset"),
    **dict.fromkeys(("-E", "--rename-chain"), "declare the chain under its new name instead"),
    **dict.fromkeys(("-L", "--list", "-S", "--list-rules"), "leave it out, and run it in a shell"),
    **dict.fromkeys(("-C", "--check"), "leave it out, and run it in a shell"),
}

_BUILTIN = frozenset(chain for chains in BUILTIN_CHAINS.values() for chain in chains)

# Control characters, and those that turn the direction of writing, so that a line reads otherwise than it is.
_DECEIVING = "\x01-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_LOOKALIKES = (
    "\xa0\xad\u1680\u2000-\u200d\u2010-\u2015\u2018-\u201f\u2028\u2029\u202f\u205f-\u2064\u2212\u3000\ufeff"
    "\ufe58\ufe63\uff02\uff07\uff0d"
)
_ODD_CHARACTER = re.compile(f"[{_DECEIVING}{_LOOKALIKES}]")
_DECEIVING_CHARACTER = re.compile(f"[{_DECEIVING}]")


def _prefixes(names: Iterable[str], shortest: int = 3) -> frozenset[str]:
    """The names and all that getopt_long(3) takes for them, from so many characters on."""
    return frozenset(name[:end] for name in names for end in range(shortest, len(name) + 1))


# No option of an extension is named like the beginning of one of these, so each of them means the core option, or
# is ambiguous and refused by iptables. "--set" is an option of others: only what is longer means --set-counters.
_FORBIDDEN_LONG = (
    _prefixes(("--help", "--version", "--table", "--wait-interval", "--verbose", "--numeric", "--exact"))
    | _prefixes(("--modprobe", "--line-numbers"), 4)
    | _prefixes(("--set-counters",), 8)
)
_MISREAD_LONG = _prefixes(
    ("--source", "--src", "--destination", "--dst", "--protocol", "--jump", "--in-interface", "--out-interface")
)
_TRAP_WORD = (
    "-(?:f*(?:(?P<letter>[MhVtwWvnxSLCDRFZXEPNAIc])|(?P<family>[46])(?![ \t]|$)|(?P<attached>[sdpjio])(?![ \t]|$))"
    rf"|-(?P<long>{'|'.join(sorted(name[2:] for name in _FORBIDDEN_LONG))})(?=[= \t]|$)"
    rf"|-(?P<misread>{'|'.join(sorted(name[2:] for name in _MISREAD_LONG))})=)"
)
_TRAP = re.compile(_TRAP_WORD)
_NEGATABLE = frozenset(
    {"-s", "-d", "-p", "-i", "-o", "--source", "--src", "--destination", "--dst", "--protocol", "--proto"}
    | {"--in-interface", "--out-interface", "--sport", "--dport", "--source-port", "--destination-port"}
)
_TRAP_OR_FAMILY = re.compile(f"[$;|<>`']| (?:&|-[46]|--ipv|-[^ ]+ +!|{_TRAP_WORD})")


def may_hold_trap(text: str) -> bool:
    """Whether this rule text without quotes could be refused for a trap or for the leavings of a shell, or an option in
    it names a family; a quick look that errs on the side of yes."""
    return "\t" in text or _TRAP_OR_FAMILY.search(f" {text}") is not None


_HINTS = {
    "M": "leave it out: it would run a program as root",
    "h": "leave it out: it would print a help text, and add no rule",
    "V": "leave it out: it would print the version, and add no rule",
    "t": "write -t and the table before -A, or *table on a line above",
    "c": "leave it out: counters are not part of a ruleset",
    "w": "leave it out: fwguardd waits for the lock by itself",
    **dict.fromkeys("AINP", "write a line for each: one line is one rule"),
}
_LETTER_OF_LONG = {"mo": "M", "h": "h", "vers": "V", "t": "t", "set-c": "c"}


class LineFault(Exception):  # noqa: N818 - it carries a finding to be, and ends inside `read_rules`.
    """One line cannot be used, and why."""

    def __init__(self, code: str, message: str, hint: str = "", column: int = 0) -> None:
        super().__init__(message)
        self.code, self.message, self.hint, self.column = code, message, hint, column


def refuse_odd_characters(raw: str, words: Sequence[Word]) -> None:
    """Deceiving characters anywhere; look-alikes of dash, quote and space where they are not inside a quoted text."""
    if raw.isascii() and raw.isprintable():
        return
    for match in _ODD_CHARACTER.finditer(raw):
        place = match.start()
        quoted = any(word.start <= place < word.end and '"' in raw[word.start : word.end] for word in words)
        if quoted and not _DECEIVING_CHARACTER.match(raw, place):
            continue
        raise _odd_character(match.group(), place + 1)


_PLAIN = {
    **dict.fromkeys(("Pd", "Sm"), "-"),
    **dict.fromkeys(("Pi", "Pf", "Ps", "Po"), '"'),
    "Zs": "a space",
}
"""What is to be written for a look-alike, by its Unicode category."""


def _odd_character(character: str, column: int) -> LineFault:
    name = unicodedata.name(character, "a control character").lower()
    message = f"column {column} holds an odd character: {name} (U+{ord(character):04X})"
    plain = "--" if character == "\u2014" else _PLAIN.get(unicodedata.category(character))
    hint = "remove it: it cannot be seen, and the line is not what it seems"
    if plain is not None:
        hint = f"write {plain} in its place; such characters come from web pages and text editors"
    return LineFault("odd-character", message, hint, column)


def refuse_chain_name(name: str) -> None:
    """Names that iptables refuses, that mean something else to it, or that the text of a ruleset cannot carry."""
    if len(name.encode()) > LONGEST_CHAIN_NAME:
        message = f'the chain name "{name[:40]}" is over {LONGEST_CHAIN_NAME} bytes'
        raise LineFault("chain-name", message, "shorten it")
    if name in VERDICTS:
        raise LineFault("chain-name", f"{name} is a target, and cannot be the name of a chain", "choose another name")
    odd = not name.isprintable() or _ODD_CHARACTER.search(name)
    if not name or name[0] in "-!#" or odd or " " in name or '"' in name:
        hint = "leave out the quotes" if '"' in name else "use letters, digits, _ and -, and begin with a letter"
        raise LineFault("chain-name", f'"{name}" cannot be the name of a chain', hint)


def refuse_policy(table: str, chain: str, policy: str) -> None:
    """Policies that no chain has, and any policy for a chain that is not built in."""
    if chain not in BUILTIN_CHAINS[table]:
        known = ", ".join(BUILTIN_CHAINS[table])
        message = f"only a built-in chain has a policy, and {chain} is none in table {table}"
        if chain.upper() in BUILTIN_CHAINS[table]:
            hint = f"write {chain.upper()}"
        elif chain in _BUILTIN:
            hint = f"those of {table} are {known}"
        else:
            hint = f'write ":{chain} - [0:0]", and end the chain with a rule: "-A {chain} -j DROP"'
        raise LineFault("policy-on-user-chain", message, hint)
    if not policy:
        raise LineFault("bad-policy", f"the policy of {chain} is missing", "write ACCEPT or DROP behind it")
    if policy not in POLICIES:
        hint = "a policy is ACCEPT or DROP"
        if policy.upper() in POLICIES:
            hint = f"write {policy.upper()}"
        elif policy == "REJECT":
            hint = f'write DROP, and end the chain with a rule: "-A {chain} -j REJECT"'
        raise LineFault("bad-policy", f'"{policy}" is no policy', hint)


def refuse_traps(words: Sequence[Word]) -> None:
    """Options that describe no packet, and values that iptables-restore misreads, in the words of a rule."""
    values = [word.value for word in words]
    for place, word in enumerate(words):
        if word.value == "!" and _is_behind_option(values, place):
            message = f"iptables no longer reads a ! behind {values[place - 1]}"
            value = values[place + 1] if place + 1 < len(values) else "…"
            raise LineFault("misplaced-negation", message, f"write ! {values[place - 1]} {value}", word.start + 1)
        match = _TRAP.match(word.value) if word.value[:1] == "-" else None
        if match is None:
            continue
        kind = match.lastgroup
        if kind in ("attached", "misread", "family"):
            if not is_free_text(values, place):
                _refuse_attached(word, match, kind)
        elif not is_plainly_free_text(values, place):
            _refuse_option(word, match)


def _is_behind_option(values: Sequence[str], place: int) -> bool:
    return place > 0 and values[place - 1] in _NEGATABLE and not is_free_text(values, place - 1)


def _refuse_option(word: Word, match: re.Match[str]) -> None:
    if match["letter"]:
        shown, letter = f"-{match['letter']}", match["letter"]
    else:
        shown = f"--{match['long']}"
        letter = next((short for start, short in _LETTER_OF_LONG.items() if match["long"].startswith(start)), "")
    hint = _HINTS.get(letter, "leave it out")
    raise LineFault("forbidden-option", f"{shown} does not belong in a rule", hint, word.start + 1)


def _refuse_attached(word: Word, match: re.Match[str], kind: str) -> None:
    end = match.end(kind)
    option = word.value[:end]
    if kind == "family":
        message, hint = f"{option} has something attached to it", f"write -{match[kind]} as a word of its own"
    elif f"-{word.value}" in OPTIONS:
        message, hint = f"{word.value} has one dash too few", f"write -{word.value}"
    else:
        message = f"iptables-restore misreads a value that is attached to {option}"
        hint = f"write {option} {word.value[end:].removeprefix('=')}"
    raise LineFault("attached-value", message, hint, word.start + 1)
