"""The sample of a ruleset that is rehearsed: which rules it has, and how the others are spelled."""

from __future__ import annotations

import pytest

from fwguardd.ruleset.compose import compose
from fwguardd.ruleset.model import Chain, Family, Rule, Ruleset, Table, texts_of
from fwguardd.ruleset.parser import read_rules
from fwguardd.ruleset.rehearsal_sample import Sample
from fwguardd.ruleset.rule_forms import FormReader

ADDRESSES = [f"192.0.{number // 250}.{number % 250 + 1}" for number in range(220)]


def rulesets(lines: list[str]) -> dict[Family, Ruleset]:
    """The rulesets of a file with these lines."""
    return dict(compose([read_rules("a.rules", "".join(f"{line}\n" for line in lines).encode())]).candidate.rulesets)


def spelled(written: dict[Family, Ruleset], change: dict[str, str]) -> dict[Family, Ruleset]:
    """Rulesets as a kernel might spell them: with these changes in the texts."""
    found = {}
    for family, ruleset in written.items():
        tables = {}
        for table in ruleset.tables.values():
            chains = {chain.name: _spelled(chain, change) for chain in table.chains.values()}
            tables[table.name] = Table(table.name, chains)
        found[family] = Ruleset(family, tables)
    return found


def _spelled(chain: Chain, change: dict[str, str]) -> Chain:
    rules = []
    for rule in chain.rules:
        text = rule.text
        for old, new in change.items():
            text = text.replace(old, new)
        rules.append(Rule(text, rule.origin))
    return Chain(chain.name, chain.policy, tuple(rules), chain.origin)


def texts(found: dict[Family, Ruleset], chain: str = "INPUT") -> list[str]:
    """The texts of a chain of IPv4."""
    return list(texts_of(found[Family.IPV4].tables["filter"].chains[chain].rules))


@pytest.mark.parametrize(
    "rule",
    [
        "-s {} -j DROP",
        "! -s {} -j DROP",
        "-p tcp -s {} --dport 443 -m conntrack --ctstate NEW -j ACCEPT",
        "-s {}/32 -i eth0 -j REJECT --reject-with icmp-port-unreachable",
        '-s {} -m comment --comment "of host {}" -j ACCEPT',
        '-s {} -m limit --limit 5/min -j LOG --log-prefix "iptables denied: "',
    ],
)
def test_the_first_and_the_last_rule_of_a_form_stand_for_all(rule: str) -> None:
    """They are rehearsed; each other rule is spelled as they are, with its own values and its own origin."""
    written = rulesets([f"-A INPUT {rule.replace('{}', address)}" for address in ADDRESSES])
    sample = Sample(written)
    assert sample.is_small
    assert texts(dict(sample.rulesets)) == [texts(written)[0], texts(written)[-1]]
    change = {"-j": "--jump", "/32 ": "/255% "}
    found = sample.spelled(spelled(dict(sample.rulesets), change))
    assert found is not None
    assert repr(found) == repr(spelled(written, change))


def test_values_may_be_printed_in_another_order() -> None:
    """iptables-save prints the source first, wherever it was written."""
    written = rulesets([f"-A INPUT -p tcp --dport {n + 1} -s {a} -j DROP" for n, a in enumerate(ADDRESSES)])
    sample = Sample(written)
    kept = sample.rulesets[Family.IPV4].tables["filter"].chains["INPUT"].rules
    swapped = []
    for rule in kept:
        words = rule.text.split()
        swapped.append(Rule(f"-s {words[5]}/32 -p tcp -m tcp --dport {words[3]} -j DROP", rule.origin))
    chain = Chain("INPUT", "ACCEPT", tuple(swapped))
    tables = {**sample.rulesets[Family.IPV4].tables["filter"].chains, "INPUT": chain}
    found = sample.spelled({**sample.rulesets, Family.IPV4: Ruleset(Family.IPV4, {"filter": Table("filter", tables)})})
    assert found is not None
    assert texts(dict(found))[1] == f"-s {ADDRESSES[1]}/32 -p tcp -m tcp --dport 2 -j DROP"


def test_two_spellings_of_one_form_tell_nothing() -> None:
    """Where the first and the last rule of a form are spelled differently, all rules have to be rehearsed."""
    written = rulesets([f"-A INPUT -s {address} -j DROP" for address in ADDRESSES])
    sample = Sample(written)
    assert sample.spelled(spelled(dict(sample.rulesets), {f"{ADDRESSES[0]} ": f"{ADDRESSES[0]}/32 "})) is None


def test_a_value_that_is_gone_tells_nothing() -> None:
    """Where iptables leaves a value out, or prints another one, all rules have to be rehearsed."""
    written = rulesets([f"-A INPUT -s {address} -j DROP" for address in ADDRESSES])
    sample = Sample(written)
    assert sample.spelled(spelled(dict(sample.rulesets), {"192.0": "192.1"})) is None


def test_chains_and_rules_that_depend_on_others_stay() -> None:
    """All chains, policies and jumps are rehearsed, and the rules of each chain by themselves."""
    lines = ["-P INPUT DROP", ":WEB -", "-A INPUT -j WEB", *(f"-A INPUT -s {a} -j DROP" for a in ADDRESSES)]
    lines += ["-A WEB -m set --match-set x src -j DROP", *(f"-A WEB -s {a} -j DROP" for a in ADDRESSES)]
    small = dict(Sample(rulesets(lines)).rulesets)
    assert len(texts(small)) == len(texts(small, "WEB")) == 3
    assert small[Family.IPV4].tables["filter"].chains["INPUT"].policy == "DROP"


def test_different_rules_are_rehearsed_whole() -> None:
    """Where little would be saved no sample is taken."""
    assert not Sample(rulesets([f"-A INPUT -p tcp --dport {n}:65000 -j DROP" for n in range(1, 400)])).is_small


@pytest.mark.parametrize(
    "text",
    [
        "-s 192.0.2.1/24 -j DROP",
        "-s 192.0.2.010 -j DROP",
        "-s 0.0.0.0 -j DROP",
        "-s 0.0.0.0/0 -j DROP",
        "-s 10.0.0.0/255.0.0.0 -j DROP",
        "-s 10.0.0.1,10.0.0.2 -j DROP",
        "-s 256.0.0.1 -j DROP",
        "-s 2001:DB8::1 -j DROP",
        "-s 2001:db8:0::1 -j DROP",
        "-s 2001:db8::1/64 -j DROP",
        "-s ::ffff:102:304 -j DROP",
        "-p tcp --dport 0 -j DROP",
        "-p tcp --dport 080 -j DROP",
        "-p tcp --dport 65536 -j DROP",
        "-p tcp --dport 1:2 -j DROP",
        "-p tcp --dport ssh -j DROP",
        "-m comment --comment a.b -j DROP",
        '-m comment --comment "a" -j DROP',
        '-m comment --comment "it\'s" -j DROP',
        '-j LOG --log-prefix "-s 10.0.0.1 "',
        "-s 10.0.0.1 -j WEB",
        "-s example.org -j DROP",
    ],
)
def test_what_iptables_may_print_otherwise_has_no_form(text: str) -> None:
    """Such a rule is always rehearsed itself."""
    assert FormReader().read(text)[0] is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-s 10.0.0.1 -j DROP", "-s 192.0.2.255 -j DROP"),
        ("-s 10.0.0.0/8 -j DROP", "-s 192.0.0.0/8 -j DROP"),
        ("-s 2001:db8::1 -p tcp --dport 1 -j DROP", "-s fe80::1:2 -p tcp --dport 65535 -j DROP"),
        ("-d 2001:db8::/32 -j DROP", "-d 2001:db9::/32 -j DROP"),
        ("-m comment --comment a -j DROP", "-m comment --comment b-9_c -j DROP"),
        ('-m comment --comment "a b" -j DROP', '-m comment --comment "a/b: c" -j DROP'),
    ],
)
def test_values_make_no_other_form(one: str, other: str) -> None:
    """Addresses, ports and comments as iptables prints them are values."""
    forms = FormReader()
    assert forms.read(one)[0] is forms.read(other)[0] is not None


def test_addresses_of_both_families_are_of_two_forms() -> None:
    """An IPv6 address that is not written as iptables prints it is rehearsed itself, also behind rules for IPv4 that
    differ in nothing but the address."""
    lines = [f"-A INPUT -s {address} -j DROP" for address in ADDRESSES]
    lines += [f"-A INPUT -s 2001:db8::{number:x} -j DROP" for number in range(1, 200)]
    lines.insert(len(ADDRESSES) + 100, "-A INPUT -s 2001:db8:0:0::50 -j DROP")
    sample = Sample(rulesets(lines))
    of_ipv6 = texts_of(sample.rulesets[Family.IPV6].tables["filter"].chains["INPUT"].rules)
    assert of_ipv6 == ["-s 2001:db8::1 -j DROP", "-s 2001:db8:0:0::50 -j DROP", "-s 2001:db8::c7 -j DROP"]
    assert len(texts(dict(sample.rulesets))) == 2
