"""Lines and words that are from another language, a shell's above all: refused, with what to write instead.

Rule files are often made out of the scripts of tutorials. iptables-restore takes ``-i $EXT_IF`` for an interface of
that name, with exit code 0, and ``'Dropped: '`` for two words; here both are told.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fwguardd.ruleset.families import PROSE_OPTIONS
from fwguardd.ruleset.model import BUILTIN_CHAINS
from fwguardd.ruleset.traps import LineFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fwguardd.ruleset.words import Word

OTHER_LANGUAGE = "other-language"
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


def strange_line(words: Sequence[Word]) -> LineFault:
    """What is wrong with a line that starts no statement."""
    first = words[0].value
    column = words[0].start + 1
    if first in _FOREIGN_WORDS:
        hint = "write each rule in a line, as iptables-save prints it: -A INPUT …"
        return LineFault(
            OTHER_LANGUAGE, f'"{first}" is the language of nft or ferm, not that of iptables', hint, column
        )
    if first in _SCRIPT_WORDS or "$" in first or _ASSIGNMENT.match(first):
        hint = "leave only the rules in it: nothing here runs commands or knows variables"
        if first == "sudo":
            hint = 'leave it out, here and wherever else: "iptables -A …" is read as a rule'
        return LineFault(OTHER_LANGUAGE, f'"{first[:40]}" is for a shell, and a rule file is no script', hint, column)
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
