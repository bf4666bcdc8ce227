"""What a rule file must not hold although iptables may accept it: each is refused with its reason.

- Options that do not describe packets: iptables-restore runs a program as root for ``--modprobe``, and prints a text
  and exits with 0 instead of adding a rule for ``-h`` and ``-V``. Others name a table, set counters or list rules.
- Values attached to their option, which iptables-restore 1.8.9 misreads: it takes ``-ieth0`` for the interface
  "-ieth0", and exits with 0.
- Names of tables and chains, and policies, that the kernel does not have.
- The syntax of shells, nft(8) and ferm(1). Rule files are often made from the scripts of tutorials, and
  iptables-restore takes ``-i $EXT_IF`` for an interface of that name, and ``'Dropped: '`` for two words.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.patterns import pattern
from fwguardd.ruleset.families import PROSE_OPTIONS, is_free_text, is_plainly_free_text
from fwguardd.ruleset.model import BUILTIN_CHAINS, POLICIES, VERDICTS
from fwguardd.ruleset.suggestions import OPTIONS, nearest_name
from fwguardd.ruleset.tokenizer import ODD_CHARACTER, LineFault, values_of

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Sequence

    from fwguardd.ruleset.tokenizer import Word


LONGEST_CHAIN_NAME = 28
"""Bytes of a chain name (XT_EXTENSION_MAXNAMELEN less the final NUL, linux/netfilter/x_tables.h)."""

_IMPERATIVES = {
    **dict.fromkeys(("-D", "--delete"), "remove the line that adds the rule instead"),
    **dict.fromkeys(("-R", "--replace"), "edit the line that adds the rule instead"),
    **dict.fromkeys(("-F", "--flush"), "leave it out: every load replaces all rules of the table"),
    **dict.fromkeys(("-X", "--delete-chain"), "leave it out: a chain that no file declares is removed"),
    **dict.fromkeys(("-Z", "--zero"), "leave it out: counters are not part of a ruleset"),
    **dict.fromkeys(("-E", "--rename-chain"), "declare the chain under its new name instead"),
    **dict.fromkeys(("-L", "--list", "-S", "--list-rules"), "leave it out; run it in a shell"),
    **dict.fromkeys(("-C", "--check"), "leave it out; run it in a shell"),
}

_BUILTIN = frozenset[str]().union(*BUILTIN_CHAINS.values())


def _prefixes(names: Iterable[str], shortest: int = 3) -> frozenset[str]:
    """The names and all that getopt_long(3) takes for them, from so many characters on."""
    return frozenset(name[:end] for name in names for end in range(shortest, len(name) + 1))


_JUMPS = frozenset({"-j", "-g"}) | _prefixes(("--jump", "--goto"))

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
_FORBIDDEN_WORD = (
    "-(?:f*(?:(?P<letter>[MhVtwWvnxSLCDRFZXEPNAIc])|(?P<family>[46])(?![ \t]|$)|(?P<attached>[sdpjio])(?![ \t]|$))"
    rf"|-(?P<long>{'|'.join(sorted(name[2:] for name in _FORBIDDEN_LONG))})(?=[= \t]|$)"
    rf"|-(?P<misread>{'|'.join(sorted(name[2:] for name in _MISREAD_LONG))})=)"
)
_FORBIDDEN = pattern(_FORBIDDEN_WORD)
_NEGATABLE = frozenset(
    {"-s", "-d", "-p", "-i", "-o", "--source", "--src", "--destination", "--dst", "--protocol", "--proto"}
    | {"--in-interface", "--out-interface", "--sport", "--dport", "--source-port", "--destination-port"}
)
_JUMP_TO_BUILTIN = rf"-(?:[jg]|-j[ump]*|-g[oto]*) +(?:{'|'.join(sorted(_BUILTIN))})(?![^ ])"
_FORBIDDEN_OR_FAMILY = pattern(f"[$;|<>`']| (?:&|{_JUMP_TO_BUILTIN}|-[46]|--ipv|-[^ ]+ +!|{_FORBIDDEN_WORD})")


def may_hold_forbidden_option(text: str) -> bool:
    """Whether a rule text without quotes may hold a forbidden option, shell syntax, or an option that names a family.
    A quick check: True may be wrong, False is certain."""
    return "\t" in text or _FORBIDDEN_OR_FAMILY.search(f" {text}") is not None


_HINTS = {
    "M": "leave it out: iptables would run a program as root",
    "h": "leave it out: iptables would print a help text and add no rule",
    "V": "leave it out: iptables would print its version and add no rule",
    "t": "write -t and the table before -A, or *table on a line above",
    "c": "leave it out: counters are not part of a ruleset",
    "w": "leave it out: fwguardd waits for the lock",
    **dict.fromkeys("AINP", "write one rule per line"),
}
_LETTER_OF_LONG = {"mo": "M", "h": "h", "vers": "V", "t": "t", "set-c": "c"}


_AMBIGUOUS_NAME = pattern(r'^[-!#]|[ "]|^$')


def refuse_chain_name(name: str) -> None:
    """A chain name that iptables refuses or reads as something else, or that iptables-save cannot print unambiguously.

    Raises LineFault.
    """
    if len(name.encode()) > LONGEST_CHAIN_NAME:
        message = f'the chain name "{name[:40]}" is longer than {LONGEST_CHAIN_NAME} bytes'
        raise LineFault("chain-name", message, "shorten it")
    if name in VERDICTS:
        raise LineFault("chain-name", f"{name} is a target, and cannot be the name of a chain", "choose another name")
    if _is_odd_name(name):
        raise LineFault("chain-name", f'"{name}" cannot be the name of a chain', _how_to_name(name))


def _how_to_name(refused: str) -> str:
    if '"' in refused:
        return "leave out the quotes"
    return "use letters, digits, _ and -, and begin with a letter"


def _is_odd_name(name: str) -> bool:
    if ODD_CHARACTER.search(name) or _AMBIGUOUS_NAME.search(name):
        return True
    return not name.isprintable()


def refuse_unknown_table(name: str, consequence: str = "", column: int = 0) -> None:
    """A table that the kernel does not have. Raises LineFault."""
    if name in BUILTIN_CHAINS:
        return
    message = "the name of the table is missing"
    if name:
        message = f'there is no table "{name}"'
    raise LineFault("unknown-table", message + consequence, _table_meant(name), column)


def _table_meant(name: str) -> str:
    meant = nearest_name(name, BUILTIN_CHAINS)
    if meant:
        return f"write {meant}"
    return f"the tables are {', '.join(BUILTIN_CHAINS)}"


def refuse_imperative(word: Word) -> None:
    """A verb that changes the live ruleset. Raises LineFault."""
    hint = _IMPERATIVES.get(word.value) or _IMPERATIVES.get(word.value[:2])
    if hint is not None:
        raise LineFault("imperative", f"{word.value} does not belong in a rule file", hint, word.start + 1)


def refuse_policy(table: str, chain: str, policy: str) -> None:
    """A policy that no chain can have, and any policy of a user-defined chain. Raises LineFault."""
    if chain not in BUILTIN_CHAINS[table]:
        message = f"only a built-in chain has a policy, and {chain} is not built into table {table}"
        raise LineFault("policy-on-user-chain", message, _instead_of_policy(table, chain))
    if not policy:
        raise LineFault("bad-policy", f"the policy of {chain} is missing", "write ACCEPT or DROP after it")
    if policy not in POLICIES:
        raise LineFault("bad-policy", f'"{policy}" is not a policy', _correct_policy(chain, policy))


def _correct_policy(chain: str, policy: str) -> str:
    if policy.upper() in POLICIES:
        return f"write {policy.upper()}"
    if policy == "REJECT":
        return f'write DROP, and end the chain with a rule: "-A {chain} -j REJECT"'
    return "a policy is ACCEPT or DROP"


def _instead_of_policy(table: str, chain: str) -> str:
    if chain.upper() in BUILTIN_CHAINS[table]:
        return f"write {chain.upper()}"
    if chain in _BUILTIN:
        return f"the built-in chains of {table} are {', '.join(BUILTIN_CHAINS[table])}"
    return f'write ":{chain} - [0:0]", and end the chain with a rule: "-A {chain} -j DROP"'


def refuse_forbidden_options(words: Sequence[Word]) -> None:
    """Options that do not describe packets, and values that iptables-restore misreads, in the words of a rule.

    Raises LineFault.
    """
    values = values_of(words)
    for place, word in enumerate(words):
        _refuse_misplaced_negation(values, place, word)
        _refuse_jump_to_builtin(values, place, word)
        match = _FORBIDDEN.match(word.value)
        if match is None:
            continue
        kind = match.lastgroup
        if kind in ("attached", "misread", "family"):
            if not is_free_text(values, place):
                _refuse_attached(word, match, kind)
        elif not is_plainly_free_text(values, place):
            _refuse_option(word, match)


def _refuse_jump_to_builtin(values: Sequence[str], place: int, word: Word) -> None:
    """A jump to a chain that is built in. Raises LineFault."""
    if word.value not in _BUILTIN or not place or values[place - 1] not in _JUMPS or is_free_text(values, place - 1):
        return
    message = f"{word.value} is a built-in chain, and no rule can jump to it"
    hint = "jump to a chain of your own, or write ACCEPT, DROP or another target"
    raise LineFault("jump-to-builtin", message, hint, word.start + 1)


def _refuse_misplaced_negation(values: Sequence[str], place: int, word: Word) -> None:
    """A ! between an option and its value. Raises LineFault."""
    if word.value != "!" or place == 0:
        return
    option = values[place - 1]
    if option in _NEGATABLE and not is_free_text(values, place - 1):
        value = "".join(values[place + 1 : place + 2]) or "…"
        message = f"iptables does not accept a ! after {option}"
        raise LineFault("misplaced-negation", message, f"write ! {option} {value}", word.start + 1)


def _refuse_option(word: Word, match: re.Match[str]) -> None:
    if match["letter"]:
        shown, letter = f"-{match['letter']}", match["letter"]
    else:
        shown = f"--{match['long']}"
        letter = _letter_of(match["long"])
    hint = _HINTS.get(letter, "leave it out")
    raise LineFault("forbidden-option", f"{shown} does not belong in a rule", hint, word.start + 1)


def _letter_of(long_option: str) -> str:
    for start, letter in _LETTER_OF_LONG.items():
        if long_option.startswith(start):
            return letter
    return ""


def _refuse_attached(word: Word, match: re.Match[str], kind: str) -> None:
    end = match.end(kind)
    option = word.value[:end]
    if kind == "family":
        message, hint = f"{option} has a value attached to it", f"write -{match[kind]} as a word of its own"
    elif f"-{word.value}" in OPTIONS:
        message, hint = f"{word.value} has one dash too few", f"write -{word.value}"
    else:
        message = f"iptables-restore misreads a value that is attached to {option}"
        hint = f"write {option} {word.value[end:].removeprefix('=')}"
    raise LineFault("attached-value", message, hint, word.start + 1)


FOREIGN_SYNTAX = "other-language"
"""The code for a line of a script, reported once per file: its author did not mean to write a rule file."""

_SCRIPT_WORDS = frozenset(
    {"sudo", "doas", "exec", "env", "eval", "for", "while", "until", "do", "done", "if", "then", "elif", "else", "fi"}
    | {"case", "esac", "function", "echo", "printf", "modprobe", "insmod", "sysctl", "exit", "return", "set", "unset"}
    | {"export", "local", "source", ".", "{", "}", "[", "[[", "test", ":", "cd", "read", "trap", "sleep", "ip", "tc"}
    | {"ipset", "service", "systemctl", "iptables-save", "iptables-restore", "ip6tables-save", "ip6tables-restore"}
    | {"iptables-apply", "netfilter-persistent", "ufw", "firewall-cmd"}
)
_FOREIGN_WORDS = frozenset({"table", "chain", "domain", "nft", "define", "flush", "include", "@def", "@if", "@hook"})
_ASSIGNMENT = pattern(r"[A-Za-z_][A-Za-z0-9_]*=")
_VARIABLE = pattern(r"(?:^|[,:=/!])(\$(?:[A-Za-z_][A-Za-z0-9_]*|[{(][^ ]*|[0-9@*#?])|`[^ ]*)")
_OPERATOR = pattern(r"(?:&&?|\|\|?|;+|[0-9&]?>>?(?:&[0-9]|[^ ]*)|<[^ ]*)$")
_VERBS = {"a": "-A", "i": "-I", "p": "-P", "n": "-N"}


def foreign_line(words: Sequence[Word]) -> LineFault:
    """The fault of a line that does not begin with a statement."""
    first = words[0].value
    column = words[0].start + 1
    if first in _FOREIGN_WORDS:
        hint = "write one rule per line, as iptables-save prints it: -A INPUT …"
        message = f'"{first}" is the language of nft or ferm, not that of iptables'
        return LineFault(FOREIGN_SYNTAX, message, hint, column)
    if _begins_command(first):
        return _script_line(first, column)
    return LineFault("not-a-rule", f'"{first[:40]}" does not begin a statement', _how_to_start(words), column)


def _begins_command(first: str) -> bool:
    """Whether a shell would run a line that begins with this word."""
    return first in _SCRIPT_WORDS or "$" in first or _ASSIGNMENT.match(first) is not None


def _script_line(first: str, column: int) -> LineFault:
    hint = "leave only the rules in the file: fwguardd does not run commands or expand variables"
    if first == "sudo":
        hint = 'leave out sudo everywhere: "iptables -A …" is read as a rule'
    message = f'"{first[:40]}" is shell syntax, and a rule file is not a script'
    return LineFault(FOREIGN_SYNTAX, message, hint, column)


def _how_to_start(words: Sequence[Word]) -> str:
    first = words[0].value
    verb = _verb_meant(words)
    if verb:
        return f"write {verb}"
    if first in _BUILTIN:
        return f'write "-A {first} …"'
    if first.upper() == "COMMIT":
        return "write COMMIT"
    if _looks_like_comment(first):
        return "start a comment with #"
    if _looks_like_option(first):
        return f'start a rule with its chain: "-A INPUT {first} …"'
    return "begin the line with -A, -I, -N, -P, *TABLE, :CHAIN, COMMIT or #"


def _looks_like_comment(word: str) -> bool:
    return word.startswith((";", "/")) or word == "--"


def _looks_like_option(word: str) -> bool:
    return word[:1] == "-" and len(word) > 1


def _verb_meant(words: Sequence[Word]) -> str:
    """The verb that is written without its dash or in lower case before a built-in chain; empty for none."""
    if len(words) == 1 or words[1].value not in _BUILTIN:
        return ""
    return _VERBS.get(words[0].value.lstrip("-").lower(), "")


def refuse_shell_words(raw: str, words: Sequence[Word]) -> None:
    """Variables, operators and single quotes of a shell among the words of a rule. Raises LineFault."""
    option = ""
    for word in words:
        text = raw[word.start : word.end]
        if text[:1] == "'" and not (option in _QUOTABLE and _is_one_quoted_word(text)):
            _refuse_single_quotes(raw, word)
        if option not in PROSE_OPTIONS:
            _refuse_shell_word(word, text)
        option = word.value


def _refuse_shell_word(word: Word, text: str) -> None:
    if match := _VARIABLE.search(word.value):
        message = f'"{match[1]}" is shell syntax; fwguardd does not expand it'
        raise LineFault("shell-syntax", message, "write the value itself", word.start + 1)
    if _OPERATOR.match(text):
        message = f'"{text}" is shell syntax, and has no meaning in a rule'
        raise LineFault("shell-syntax", message, "end the line before it", word.start + 1)
    if text[-1:] == ";":
        raise LineFault("shell-syntax", 'the ";" at the end is shell syntax', "leave it out", word.end)


_QUOTABLE = PROSE_OPTIONS | {"--name", "--hashlimit-name"}
"""Options whose value may have single quotes: iptables takes them as a part of the text. A lint warns of them."""


def _is_one_quoted_word(text: str) -> bool:
    return len(text) > 1 and text.endswith("'") and "'" not in text[1:-1]


def _refuse_single_quotes(raw: str, word: Word) -> None:
    end = raw.find("'", word.start + 1)
    if end < 0:
        return
    inner = raw[word.start + 1 : end]
    hint = "use double quotes"
    if '"' not in inner:
        hint = f'write "{inner}"'
    message = "iptables-restore reads single quotes as ordinary characters"
    raise LineFault("single-quotes", message, hint, word.start + 1)
