"""What belongs to other programs: by the name of a chain, by the text of a rule, by a jump, and by use."""

from __future__ import annotations

import pytest

from fwguardd.ruleset.copies import may_have_twins
from fwguardd.ruleset.model import Chain, Family, Rule, Ruleset, Table
from fwguardd.ruleset.preserve import STRICT, Preserve, chains_of_others, own_part, without_copies
from tests.counting import steps

PRESERVE = Preserve.from_patterns(["DOCKER*", "f2b-?shd", "-m comment --comment managed*", "*-j NFQUEUE *"])


def table(**chains: str) -> Table:
    """Chains by name with their rules, parted by semicolons; chains in capitals are built in."""
    return Table(
        "filter",
        {
            name: Chain(
                name,
                "ACCEPT" if name in ("INPUT", "FORWARD") else None,
                tuple(map(Rule, filter(None, rules.split(";")))),
            )
            for name, rules in chains.items()
        },
    )


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("DOCKER", True),
        ("DOCKER-USER", True),
        ("docker", False),
        ("f2b-sshd", True),
        ("f2b-x", False),
        ("XDOCKER", False),
    ],
)
def test_chains_are_kept_by_name(name: str, kept: bool) -> None:  # noqa: FBT001
    """Patterns are those of a shell, whole names, and capitals count."""
    assert PRESERVE.keeps_name(name) is kept
    assert PRESERVE.keeps_chain(Chain(name, None)) is kept


def test_a_built_in_chain_is_never_kept_as_a_whole() -> None:
    """Not even by a pattern that fits its name."""
    assert not Preserve.from_patterns(["*"]).keeps_chain(Chain("INPUT", "ACCEPT"))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("-j DOCKER-USER", True),
        ("-o br0 -g DOCKER", True),
        ('-m comment --comment "to DOCKER" -j web', False),
        ('-m comment --comment "x" -j DOCKER', True),
        ("-m comment --comment managed-1 -j ACCEPT", True),
        ("-p tcp -j NFQUEUE --queue-num 0", True),
        ("-j ACCEPT", False),
        ("-i DOCKER0", False),
    ],
)
def test_rules_are_kept_by_text_and_by_jump(text: str, kept: bool) -> None:  # noqa: FBT001
    """A pattern with a blank or a dash is for texts; a jump to a kept chain is kept with it."""
    assert PRESERVE.keeps_rule(Rule(text), "filter", "FORWARD") is kept
    assert not STRICT.keeps_rule(Rule(text), "filter", "FORWARD")


@pytest.mark.parametrize(
    ("pattern", "table", "chain", "kept"),
    [
        ("-t nat -A POSTROUTING -s * -j MASQUERADE", "nat", "POSTROUTING", True),
        ("-t nat -A POSTROUTING -s * -j MASQUERADE", "nat", "OUTPUT", False),
        ("-t nat -A POSTROUTING -s * -j MASQUERADE", "mangle", "POSTROUTING", False),
        ("-t nat -s * -j MASQUERADE", "nat", "mine", True),
        ("-t nat -s * -j MASQUERADE", "mangle", "mine", False),
        ("-A POSTROUTING -s * -j MASQUERADE", "mangle", "POSTROUTING", True),
        ("-A POSTROUTING -s * -j MASQUERADE", "nat", "POSTROUTING2", False),
        ("-s * -j MASQUERADE", "raw", "anything", True),
    ],
)
def test_a_pattern_for_rules_may_name_a_place(pattern: str, table: str, chain: str, kept: bool) -> None:  # noqa: FBT001
    """With -t TABLE and -A CHAIN before it a pattern is for rules in that table and chain only."""
    preserve = Preserve.from_patterns([pattern, "-t raw -A x y"])
    assert preserve.keeps_rule(Rule("-s 10.0.0.0/8 ! -o docker0 -j MASQUERADE"), table, chain) is kept


def test_a_chain_that_another_chain_of_theirs_leads_to_is_theirs() -> None:
    """It could not be removed while that one jumps there, however many jumps lie between."""
    live = table(INPUT="-j mine", DOCKER="-j one", one="-j two;-j ACCEPT", two="", mine="-j two")
    assert chains_of_others(live, PRESERVE) == {"DOCKER", "one", "two"}
    assert chains_of_others(live, STRICT) == frozenset()


def test_the_own_part_is_what_is_left() -> None:
    """Without their chains and rules; the rest in order, policies and counters as they were."""
    live = Ruleset(
        Family.IPV4, {"filter": table(INPUT="-j f2b-sshd;-i lo;-j web", FORWARD="-j DOCKER", DOCKER="", web="-j DROP")}
    )
    own = own_part(live, PRESERVE).tables["filter"]
    assert own == table(INPUT="-i lo;-j web", FORWARD="", web="-j DROP")
    assert own_part(live, STRICT) == live


def test_a_chain_that_is_wanted_is_ours_whoever_uses_it() -> None:
    """A file that declares a chain owns it, also where a chain of theirs jumps to it."""
    live = Ruleset(Family.IPV4, {"filter": table(DOCKER="-j web", web="-j DROP")})
    wanted = Ruleset(Family.IPV4, {"filter": table(web="")})
    assert list(own_part(live, PRESERVE).tables["filter"].chains) == []
    assert list(own_part(live, PRESERVE, wanted).tables["filter"].chains) == ["web"]


def test_a_text_is_matched_once_in_each_chain() -> None:
    """Looks at the same rules match no pattern again; a text of another chain, or of another family, is matched."""
    preserve = Preserve.from_patterns(["-A FORWARD -i once* *"])
    rules = ";".join(f"-i once{number} -j ACCEPT" for number in range(500))
    live = Ruleset(Family.IPV4, {"filter": table(INPUT=rules)})
    first, second = steps(lambda: own_part(live, preserve)), steps(lambda: own_part(live, preserve))
    assert second < first / 10
    assert own_part(live, preserve) == live
    moved = Ruleset(Family.IPV4, {"filter": table(FORWARD=rules)})
    assert own_part(moved, preserve).rule_count == 0
    assert own_part(live, preserve) == live


def test_a_text_that_is_about_to_be_loaded_is_not_matched_again_when_it_is_live() -> None:
    """Nor where the rules before it are looked at in between. A text that belongs to another program is found each
    time, and a chain of another name, or patterns of other settings, are looked at by themselves."""
    preserve = Preserve.from_patterns(["-A INPUT -i theirs*", "-A FORWARD -i soon*"])
    rules = ";".join(f"-i soon{number} -j ACCEPT" for number in range(500))
    before = Ruleset(Family.IPV4, {"filter": table(INPUT="-i lo")})
    wanted = Ruleset(Family.IPV4, {"filter": table(INPUT=f"{rules};-i theirs0")})
    assert without_copies(wanted, preserve) == wanted
    assert may_have_twins({Family.IPV4: wanted}, preserve)
    own_part(before, preserve)
    loaded = steps(lambda: own_part(wanted, preserve))
    assert own_part(wanted, preserve).tables["filter"] == table(INPUT=rules)
    anew = Preserve.from_patterns(["-A INPUT -i theirs*", "-A FORWARD -i soon*", "-i never"])
    assert loaded < steps(lambda: own_part(wanted, anew)) / 3
    moved = Ruleset(Family.IPV4, {"filter": table(FORWARD=rules)})
    assert own_part(moved, preserve).rule_count == 0
