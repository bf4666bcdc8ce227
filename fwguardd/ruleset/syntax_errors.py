"""What does not belong in a rule file, though iptables would take it or look like it: refused, each with its reason.

Options that run a program as root (``--modprobe``), print a text and end with success instead of adding a rule
(``-h``, ``-V``), name a table, set counters, or ask for something (``-L``); values attached to their option, which
iptables-restore 1.8.9 misreads (``-ieth0`` is the interface "-ieth0" to it, with exit code 0); verbs that make sense in
a shell and none in a declaration; and characters that look like a dash, a quote or a space and are none, as web pages
have them.

Lines and words that are from another language, a shell's above all: refused, with what to write instead.

Rule files are often made out of the scripts of tutorials. iptables-restore takes ``-i $EXT_IF`` for an interface of
that name, with exit code 0, and ``'Dropped: '`` for two words; here both are told.

This module is pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fwguardd.ruleset.families import PROSE_OPTIONS, is_free_text, is_plainly_free_text
from fwguardd.ruleset.model import BUILTIN_CHAINS, POLICIES, VERDICTS
from fwguardd.ruleset.suggestions import OPTIONS, nearest_name
from fwguardd.ruleset.tokenizer import ODD_CHARACTER, LineFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fwguardd.ruleset.tokenizer import Word


LONGEST_CHAIN_NAME = 28
"""Bytes of a chain name (XT_EXTENSION_MAXNAMELEN less the final NUL, linux/netfilter/x_tables.h)."""

_IMPERATIVES = {
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


def may_hold_forbidden_option(text: str) -> bool:
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


def refuse_chain_name(name: str) -> None:
    """Names that iptables refuses, that mean something else to it, or that the text of a ruleset cannot carry."""
    if len(name.encode()) > LONGEST_CHAIN_NAME:
        message = f'the chain name "{name[:40]}" is over {LONGEST_CHAIN_NAME} bytes'
        raise LineFault("chain-name", message, "shorten it")
    if name in VERDICTS:
        raise LineFault("chain-name", f"{name} is a target, and cannot be the name of a chain", "choose another name")
    odd = not name.isprintable() or ODD_CHARACTER.search(name)
    if not name or name[0] in "-!#" or odd or " " in name or '"' in name:
        hint = "leave out the quotes" if '"' in name else "use letters, digits, _ and -, and begin with a letter"
        raise LineFault("chain-name", f'"{name}" cannot be the name of a chain', hint)


def refuse_unknown_table(name: str, consequence: str = "", column: int = 0) -> None:
    """A table that the kernel does not have. Raises LineFault."""
    if name in BUILTIN_CHAINS:
        return
    message = "the name of the table is missing"
    if name:
        message = f'there is no table "{name}"'
    meant = nearest_name(name, BUILTIN_CHAINS)
    hint = f"the tables are {', '.join(BUILTIN_CHAINS)}"
    if meant:
        hint = f"write {meant}"
    raise LineFault("unknown-table", message + consequence, hint, column)


def refuse_imperative(word: Word) -> None:
    """A verb that changes the live ruleset. Raises LineFault."""
    hint = _IMPERATIVES.get(word.value) or _IMPERATIVES.get(word.value[:2])
    if hint is not None:
        raise LineFault("imperative", f"{word.value} does not belong in a rule file", hint, word.start + 1)


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


def refuse_forbidden_options(words: Sequence[Word]) -> None:
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


FOREIGN_SYNTAX = "other-language"
"""The code for a line of a script, told once for each file: whoever wrote it did not mean to write a rule file."""

_SCRIPT_WORDS = frozenset(
    {"sudo", "doas", "exec", "env", "eval", "for", "while", "until", "do", "done", "if", "then", "elif", "else", "fi"}
    | {"case", "esac", "function", "echo", "printf", "modprobe", "insmod", "sysctl", "exit", "return", "set", "unset"}
    | {"export", "local", "source", ".", "{", "}", "[", "[[", "test", ":", "cd", "read", "trap", "sleep", "ip", "tc"}
    | {"ipset", "service", "systemctl", "iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"}
    | {"iptables-apply", "netfilter-persistent", "ufw", "firewall-cmd"}
)
_FOREIGN_WORDS = frozenset({"table", "chain", "domain", "nft", "define", "flush", "include", "@def", "@if", "@hook"})
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_VARIABLE = re.compile(r"(?:^|[,:=/!])(\$(?:[A-Za-z_][A-Za-z0-9_]*|[{(][^ ]*|[0-9@*#?])|`[^ ]*)")
_OPERATOR = re.compile(r"(?:&&?|\|\|?|;+|[0-9&]?>>?(?:&[0-9]|[^ ]*)|<[^ ]*)$")
_CHAINS = frozenset(chain for chains in BUILTIN_CHAINS.values() for chain in chains)
_VERBS = {"a": "-A", "i": "-I", "p": "-P", "n": "-N"}


def foreign_line(words: Sequence[Word]) -> LineFault:
    """What is wrong with a line that starts no statement."""
    first = words[0].value
    column = words[0].start + 1
    if first in _FOREIGN_WORDS:
        hint = "write each rule in a line, as iptables-save prints it: -A INPUT …"
        return LineFault(
            FOREIGN_SYNTAX, f'"{first}" is the language of nft or ferm, not that of iptables', hint, column
        )
    if first in _SCRIPT_WORDS or "$" in first or _ASSIGNMENT.match(first):
        hint = "leave only the rules in it: nothing here runs commands or knows variables"
        if first == "sudo":
            hint = 'leave it out, here and wherever else: "iptables -A …" is read as a rule'
        return LineFault(FOREIGN_SYNTAX, f'"{first[:40]}" is for a shell, and a rule file is no script', hint, column)
    return LineFault("not-a-rule", f'"{first[:40]}" starts no statement', _how_to_start(words), column)


def _how_to_start(words: Sequence[Word]) -> str:
    first = words[0].value
    verb = _VERBS.get(first.lstrip("-").lower(), "")
    if verb and len(words) > 1 and words[1].value in _CHAINS:
        return f"write {verb}"
    if first in _CHAINS:
        return f'write "-A {first} …"'
    if first.upper() == "COMMIT":
        return "write COMMIT"
    if first[:1] in (";", "/") or first == "--":
        return "start a comment with #"
    if first[:1] == "-" and len(first) > 1:
        return f'start a rule with its chain: "-A INPUT {first} …"'
    return "a line starts with -A, -I, -N, -P, *TABLE, :CHAIN, COMMIT or #"


def refuse_shell_words(raw: str, words: Sequence[Word]) -> None:
    """Variables, operators and single quotes of a shell among the words of a rule. Raises LineFault."""
    for place, word in enumerate(words):
        text = raw[word.start : word.end]
        if text[:1] == "'":
            _refuse_single_quotes(raw, word)
        if place and words[place - 1].value in PROSE_OPTIONS:
            continue
        if match := _VARIABLE.search(word.value):
            message = f'"{match[1]}" is for a shell; nothing here puts a value in its place'
            raise LineFault("shell-syntax", message, "write the value itself", word.start + 1)
        if _OPERATOR.match(text):
            message = f'"{text}" is for a shell, and means nothing here'
            raise LineFault("shell-syntax", message, "end the line before it", word.start + 1)
        if text[-1:] == ";":
            raise LineFault("shell-syntax", 'the ";" at the end is for a shell', "leave it out", word.end)


def _refuse_single_quotes(raw: str, word: Word) -> None:
    end = raw.find("'", word.start + 1)
    if end < 0:
        return
    inner = raw[word.start + 1 : end]
    hint = f'write "{inner}"' if '"' not in inner else "use double quotes"
    raise LineFault("single-quotes", "single quotes are no quotes to iptables-restore", hint, word.start + 1)
