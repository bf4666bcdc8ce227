"""A rule's text, read as options with their values and negations.

The text of a rule stays opaque (`fwguardd.ruleset.model`): nothing here decides whether a rule is valid, or rewrites
it. A view answers what lints and explanations ask: which options stand in the text, with which values, and where the
rule jumps to. It reads what iptables-save prints and what people write: long options, options cut short as
getopt_long(3) allows, ``--option=value``, ``-jACCEPT``, ``!`` before an option or before its value, quoted words.

How many values an option takes is known to iptables alone. Here the values of an option are the words up to the next
one that starts with a dash. Options of iptables itself and options of free text, such as --comment, take the next
word whatever it is.

This module is pure.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from fwguardd.ruleset.families import FREE_TEXT_OPTIONS
from fwguardd.ruleset.model import VERDICTS
from fwguardd.ruleset.tokenizer import UnterminatedQuoteError, word_values
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_CORE_OPTIONS = {
    **dict.fromkeys(("--source", "--src"), "-s"),
    **dict.fromkeys(("--destination", "--dst"), "-d"),
    "--protocol": "-p",
    "--in-interface": "-i",
    "--out-interface": "-o",
    "--match": "-m",
    "--jump": "-j",
    "--goto": "-g",
    "--fragments": "-f",
    "--set-counters": "-c",
}
"""The long options of iptables that are part of a rule (iptables/xshared.h of iptables 1.8.9)."""

_OTHER_CORE_OPTIONS = (
    *("--append", "--delete", "--check", "--insert", "--replace", "--list", "--list-rules", "--flush", "--zero"),
    *("--new-chain", "--delete-chain", "--rename-chain", "--policy", "--table", "--numeric", "--verbose", "--wait"),
    *("--exact", "--version", "--help", "--line-numbers", "--modprobe", "--ipv4", "--ipv6"),
)
"""Its other long options. A word that could be cut from two options is an error for iptables."""

CORE_LONG_OPTIONS = (*_CORE_OPTIONS, *_OTHER_CORE_OPTIONS)
"""The long options of iptables itself."""

_SHORTEST_CUTS = {
    **dict.fromkeys(("--destination-port", "--source-port", "--destination-ports", "--source-ports"), 0),
    "--log-prefix": len("--log-p"),
    "--nflog-prefix": len("--nflog-p"),
    "--comment": len("--com"),
}
"""Options of extensions that have another name, or that people cut short, and the shortest form that is read; 0 for
the whole name only."""

_OTHER_NAMES = {
    "--destination-port": "--dport",
    "--source-port": "--sport",
    "--destination-ports": "--dports",
    "--source-ports": "--sports",
}


def _options_meant(word: str) -> set[str]:
    """The options of iptables that begin with a word, by the names that iptables-save prints."""
    return {_CORE_OPTIONS.get(option, option) for option in CORE_LONG_OPTIONS if option.startswith(word)}


def _abbreviations_of_core_options() -> dict[str, str]:
    names: dict[str, str] = {}
    for option, name in _CORE_OPTIONS.items():
        for end in range(len("--x"), len(option)):
            if _options_meant(option[:end]) == {name}:
                names[option[:end]] = name
    return names


def _canonical_names() -> Mapping[str, str]:
    """Every long form that is read -> the name of the option as iptables-save prints it."""
    names = _abbreviations_of_core_options()
    # The match "recent" has an option of this name.
    names.pop("--set", None)
    for option, shortest in _SHORTEST_CUTS.items():
        for end in range(shortest or len(option), len(option) + 1):
            names[option[:end]] = _OTHER_NAMES.get(option, option)
    return names | _CORE_OPTIONS


_NAMES = _canonical_names()
_TAKE_NEXT_WORD = FREE_TEXT_OPTIONS | frozenset(_CORE_OPTIONS.values()) - {"-f"}
_TAKE_ANY_TEXT = FREE_TEXT_OPTIONS | {""}
_TAKE_VALUE = frozenset("sdpiomjgc")
_NOT_A_MATCH_OPTION = frozenset({"-s", "-d", "-i", "-o", "-f", "-c"})

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``name`` is the one that iptables-save prints, as far as it is known here: -s for --source, --dport
    for --destination-port. Words that stand before the first option have the name ""."""

    name: str
    values: tuple[str, ...] = ()
    negated: bool = False

    @property
    def value(self) -> str:
        """The first value; empty for an option without values."""
        if not self.values:
            return ""
        return self.values[0]


@dataclass(frozen=True, slots=True)
class Match:
    """A match extension and the options that stand behind it. ``module`` is the protocol for the match that -p loads
    by itself."""

    module: str
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleView:
    """What a rule's text says: all its options in the order of the text."""

    text: str
    options: tuple[Option, ...]

    @classmethod
    def of(cls, text: str) -> RuleView:
        """The view of a text. Never raises: of a text with a quote that stays open it has no options."""
        return _view(text)

    def option(self, name: str) -> Option | None:
        """The first option of this name; None where there is none."""
        for option in self.options:
            if option.name == name:
                return option
        return None

    def has(self, name: str) -> bool:
        """Whether the rule has an option of this name."""
        return self.option(name) is not None

    def value(self, name: str) -> str | None:
        """The first value of the first option of this name; None where there is none."""
        option = self.option(name)
        if option is None:
            return None
        return option.value

    def uses(self, module: str) -> bool:
        """Whether the rule names this match extension with -m."""
        return any(option.name == "-m" and option.value == module for option in self.options)

    @property
    def target(self) -> str | None:
        """The word after -j or -g; None where there is neither."""
        for option in self.options:
            if option.name in ("-j", "-g"):
                return option.value or None
        return None

    @property
    def is_goto(self) -> bool:
        """Whether the target is given with -g, so that its chain does not return to this one."""
        return self.has("-g") and not self.has("-j")

    @property
    def jump_target(self) -> str | None:
        """The chain or target extension that the rule jumps to; None for no target and for ACCEPT and its like."""
        if self.target in VERDICTS:
            return None
        return self.target

    @property
    def core_options(self) -> tuple[Option, ...]:
        """The options -s, -d, -p, -i, -o and -f, which belong to no extension."""
        names = _NOT_A_MATCH_OPTION | {"-p"}
        return tuple(option for option in self.options if option.name in names)

    @property
    def matches(self) -> tuple[Match, ...]:
        """The match extensions in order, each with its options. An option belongs to the extension before it, which
        is so in what iptables-save prints; people may write it elsewhere, and iptables finds its extension by name."""
        return tuple(Match(module, options) for kind, module, options in self._groups() if kind == "-m")

    @property
    def target_options(self) -> tuple[Option, ...]:
        """The options that stand behind the target."""
        for kind, _, options in self._groups():
            if kind in ("-j", "-g"):
                return options
        return ()

    def _groups(self) -> Iterator[tuple[str, str, tuple[Option, ...]]]:
        """What begins with -m, -p, -j and -g: that option's name, its value and the options of extensions after it.
        For -p the name is -m if such options follow."""
        kind, name, found = "", "", list[Option]()
        for option in self.options:
            if option.name in ("-m", "-p", "-j", "-g"):
                yield kind, name, tuple(found)
                kind, name, found = option.name, option.value, []
            elif option.name not in _NOT_A_MATCH_OPTION:
                found.append(option)
                if kind == "-p":
                    kind = "-m"
        yield kind, name, tuple(found)


def target_of(text: str) -> str | None:
    """`RuleView.target` of a text, for loops over all rules: most texts need not be read whole for it."""
    plain = text
    if '"' in text:
        plain = _QUOTED.sub("\n", text)
    before, jump, after = f" {plain}".partition(" -j ")
    target = after.partition(" ")[0]
    if not jump or '"' in plain or "\t" in plain or _in_doubt(before, target):
        return RuleView.of(text).target
    return target


def _in_doubt(before: str, target: str) -> bool:
    """Whether "-j" may be the value of the option before it, or the word after it is not a plain one."""
    if not target or "\n" in target:
        return True
    return bool(before) and before.rpartition(" ")[2][:1] in ("", "-")


def jump_target(text: str) -> str | None:
    """`RuleView.jump_target` of a text, for loops over all rules."""
    target = target_of(text)
    if target in VERDICTS:
        return None
    return target


@lru_cache(maxsize=1024)
def _view(text: str) -> RuleView:
    try:
        words = word_values(text)
    except UnterminatedQuoteError:
        return RuleView(text, ())
    return RuleView(text, tuple(_options(words)))


def _options(words: Sequence[str]) -> Iterator[Option]:
    """The options that the words spell."""
    place = 0
    policy = False
    while place < len(words):
        negated = _negates_option(words, place)
        if negated:
            place += 1
        name, attached = _name_and_value(words[place])
        if policy and words[place] == "--proto":
            name = "--proto"  # The match "policy" has an option of this name.
        end = _end_of_values(words, place + 1, takes_next=name in _TAKE_NEXT_WORD and not attached)
        option = _option(name, (*attached, *words[place + 1 : end]), negated=negated)
        policy = policy or (name == "-m" and option.value == "policy")
        yield option
        place = end


def _option(name: str, values: tuple[str, ...], *, negated: bool) -> Option:
    if len(values) > 1 and values[0] == "!" and name not in _TAKE_ANY_TEXT:
        # Early versions of iptables took the exclamation mark here. The parser refuses it.
        return Option(name, values[1:], negated=True)
    return Option(name, values, negated)


def _negates_option(words: Sequence[str], place: int) -> bool:
    return words[place] == "!" and place + 1 < len(words) and words[place + 1][:1] == "-"


def _name_and_value(word: str) -> tuple[str, tuple[str, ...]]:
    """The name of the option that a word is, and the value that is attached to it. Another word is a value of the
    option without a name."""
    if word[:1] != "-":
        return "", (word,)
    if word[:2] == "--":
        name, equals, value = word.partition("=")
        return _NAMES.get(name, name), (value,) * len(equals)
    if len(word) > len("-x") and word[1] in _TAKE_VALUE:
        return word[:2], (word[2:],)
    return word, ()


def _end_of_values(words: Sequence[str], start: int, *, takes_next: bool) -> int:
    """The place behind the values that start here. Some options take the next word whatever it is."""
    end = start
    if takes_next:
        end += 1
    while end < len(words) and words[end][:1] != "-" and not _negates_option(words, end):
        end += 1
    return min(end, len(words))
