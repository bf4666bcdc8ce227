"""Patterns that are compared as texts, or compiled for one place, match what each pattern matches by itself."""

from __future__ import annotations

import random
import re
from fnmatch import fnmatchcase

from fwguardd.ruleset.preserve_patterns import NamePatterns, RulePatterns
from fwguardd.settings import DEFAULT_PRESERVE

NAMES = [pattern for pattern in DEFAULT_PRESERVE if not pattern.startswith("-") and " " not in pattern]
RULES = [pattern for pattern in DEFAULT_PRESERVE if pattern not in NAMES]
MORE_NAMES = ["x*", "*-y", "a?c", "[ab]c*", "plain", "p*q*", "b[!x]"]
MORE_RULES = ["-j LOG", "-t nat -j SNAT*", "-A INPUT -j *", "-t filter -A own *-m limit*", "*-m mark *", "? -s"]
PLACE = re.compile(r"(?:-t ([^ ]+) )?(?:-A ([^ ]+) )?(.*)")


def _like(pattern: str, chosen: random.Random) -> str:
    """A text that the pattern may match, or nearly."""
    text = re.sub(r"\[[^]]*\]|[*?]", lambda _: "".join(chosen.choices("a0-v h4i", k=chosen.randint(0, 2))), pattern)
    if chosen.random() < 0.3:
        place = chosen.randrange(len(text) + 1)
        text = text[:place] + chosen.choice("x-0 ") + text[place + chosen.randint(0, 1) :]
    return text


def test_names(seed: int) -> None:
    """A name matches where fnmatch says so of one of the patterns: of known programs, and with every kind of glob."""
    chosen, patterns = random.Random(seed), [*NAMES, *MORE_NAMES]
    ours = NamePatterns(patterns)
    for pattern in patterns * 4:
        name = _like(pattern, chosen)
        assert ours.match(name) == any(fnmatchcase(name, each) for each in patterns), name


def test_rules(seed: int) -> None:
    """A rule matches where fnmatch says so of one of the patterns that are for its table and chain, or for any."""
    chosen, patterns = random.Random(seed), [*RULES, *MORE_RULES]
    ours = RulePatterns(patterns)
    parts = [match.groups() for match in map(PLACE.fullmatch, patterns) if match is not None]
    for table, chain, text in parts * 6:
        place = (table or chosen.choice(["filter", "nat"]), chain or chosen.choice(["INPUT", "own", "FORWARD"]))
        if chosen.random() < 0.2:
            place = place[0], "other"
        rule = _like(text, chosen)
        fitting = [own for of, at, own in parts if of in (None, place[0]) and at in (None, place[1])]
        assert ours.match(*place, rule) == any(fnmatchcase(rule, each) for each in fitting), (place, rule)


def test_no_patterns() -> None:
    """Without patterns nothing matches."""
    assert not NamePatterns(()).match("") and not NamePatterns(()).match("DOCKER")
    assert not RulePatterns(()).match("filter", "INPUT", "-j ACCEPT")
