"""Files of policy tests, ``NAME.tests.yaml`` beside the rules -> tests, or findings.

A test has the keys of `KEYS`; a list or a range of values means each of them, and a test with several of these means
every combination. ``defaults`` has values for the tests that do not have the key themselves; its interfaces are taken
only by tests that name none, so that a test with ``out`` is outbound whatever the defaults say. Every mistake is a
finding at its line. An item with the key ``never`` or ``always`` is an invariant, which takes no defaults
(`fwguardd.packets.invariants`).

packaging/policy.tests.schema.json says the same for editors.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from fwguardd.packets.case_values import MOST_PACKETS, PORT_PROTOCOLS
from fwguardd.packets.invariants import is_invariant, read_invariant
from fwguardd.packets.keys import ONE_VALUE, Mistake, is_empty, mapping, read_values, readers_of
from fwguardd.packets.policy_tests import BAD_TEST, FAMILY_NAMES, PolicyTest, family_of
from fwguardd.packets.tests_of_files import PolicyTests
from fwguardd.packets.yaml_tree import ListNode, Node, NotYamlError, read_tree
from fwguardd.ruleset.model import FAMILIES, MOST_FINDINGS, Family, Finding, Findings, Origin
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fwguardd.packets.case_values import Address
    from fwguardd.packets.invariants import Invariant
    from fwguardd.packets.keys import Accounts, Readers
    from fwguardd.ruleset.model import RuleFile


_MOST_VALUES = 5 * MOST_PACKETS
"""Values of all tests of a file. Tests that may be sent have fewer; a small file can name more than there is memory
for, such as all ports in each of a thousand tests."""

_Values = dict[str, tuple[Any, ...]]
_BOTH = frozenset(FAMILIES)

_FIELDS: Mapping[str, str] = {
    "from": "source",
    "to": "destination",
    "in": "in_interface",
    "out": "out_interface",
    "icmp-type": "icmp_type",
}
"""The keys whose fields of `PolicyTest` have another name."""

KEYS = (
    *("expect", "because", "family", "proto", "from", "to", "sport", "dport", "in", "out", "icmp-type", "state"),
    *("uid", "gid", "mark", "flags", "fragment"),
)
"""The keys of a test."""


def read_policy_tests(files: Iterable[RuleFile], accounts: Accounts) -> PolicyTests:
    """The tests of these files."""
    tests: list[PolicyTest] = []
    invariants: list[Invariant] = []
    findings: list[Finding] = []
    for file in files:
        reader = _FileReader(file.path, accounts)
        tests += reader.tests(file.data)
        invariants += reader.invariants
        findings += _with_lines(Findings(reader.findings), file)
    return PolicyTests(tuple(tests), Findings(findings), tuple(invariants))


def _with_lines(findings: Findings, file: RuleFile) -> Findings:
    if not findings:
        return findings
    return findings.with_lines({file.path: file.data.decode("utf-8", "replace").splitlines()})


@dataclass(slots=True)
class _FileReader:
    """Reads one file, and notes its mistakes."""

    path: str
    accounts: Accounts
    findings: list[Finding] = field(default_factory=list)
    invariants: list[Invariant] = field(default_factory=list)

    def tests(self, data: bytes) -> list[PolicyTest]:
        """The tests of a file, without those that have mistakes."""
        try:
            root = read_tree(data)
            if root is None:
                return []
            return self._of_root(root)
        except NotYamlError as error:
            self._note(error.line, str(error))
        except Mistake as mistake:
            self._note(mistake.line, str(mistake), mistake.hint)
        return []

    def _note(self, line: int, message: str, hint: str = "") -> None:
        """Note a mistake. After the first ones a last finding says that there are more."""
        origin = Origin(self.path, line)
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(BAD_TEST, message, origin, hint=hint))
        elif len(self.findings) == MOST_FINDINGS:
            message = f"the file has more than {MOST_FINDINGS} mistakes; the others are not listed"
            self.findings.append(Finding("too-many-errors", message, origin, hint="correct these and check again"))

    def _of_root(self, root: Node) -> list[PolicyTest]:
        """Raises Mistake for a file that is not a mapping of defaults and tests."""
        parts = mapping(root, ("defaults", "tests"), "the file", 'expected "tests:" with a list of tests')
        readers = readers_of(self.accounts)
        defaults: _Values = {}
        if "defaults" in parts and not is_empty(parts["defaults"]):
            defaults = self._values(parts["defaults"], readers, "the defaults")
        listed = parts.get("tests")
        if listed is None or is_empty(listed):
            return []
        if not isinstance(listed, ListNode):
            raise Mistake(listed.line, "tests: expected a list, each test after a dash")
        return self._of_list(listed, defaults, readers)

    def _of_list(self, listed: ListNode, defaults: _Values, readers: Readers) -> list[PolicyTest]:
        """The tests of a list; the invariants in it are noted."""
        tests: list[PolicyTest] = []
        left = _MOST_VALUES
        for node in listed.items:
            try:
                if is_invariant(node):
                    self.invariants.append(read_invariant(self.path, node, readers))
                    continue
                known = len(self.findings)
                values = self._values(node, readers, "a test")
                left -= sum(map(len, values.values()))
                if left < 0:
                    self._note(node.line, "the tests have too many values", "name fewer values, or shorter ranges")
                    break
                if len(self.findings) == known:
                    tests.append(_test(Origin(self.path, node.line), values, defaults))
            except Mistake as mistake:
                self._note(mistake.line, str(mistake), mistake.hint)
        return tests

    def _values(self, node: Node, readers: Readers, what: str) -> _Values:
        """The values of each key; those with a mistake are noted and left out. Raises Mistake for a node without
        keys."""
        values: _Values = {}
        for key, value in mapping(node, KEYS, what, f'expected "key: value" in {what}').items():
            try:
                values[key] = read_values(key, value, readers[key])
            except Mistake as mistake:
                self._note(mistake.line, str(mistake), mistake.hint)
        return values


def _test(origin: Origin, own: _Values, defaults: _Values) -> PolicyTest:
    """A test of its own values and of the defaults. Raises Mistake."""
    values = _with_defaults(own, defaults)
    if "expect" not in values:
        raise Mistake(origin.line, "expect is missing", "write expect: accept, drop or reject")
    fields: dict[str, Any] = {}
    for key, value in values.items():
        fields[_FIELDS.get(key, key)] = value
    for key in ONE_VALUE & fields.keys():
        fields[key] = fields[key][0]
    test = PolicyTest(origin=origin, **fields)
    _check_direction(test, origin.line)
    _check_protocol(test, origin.line)
    return _limited(test, own)


def _with_defaults(own: _Values, defaults: _Values) -> _Values:
    values = {**defaults, **own}
    if "in" in own or "out" in own:
        for key in ("in", "out"):
            if key not in own:
                values.pop(key, None)
    return values


def _check_direction(test: PolicyTest, line: int) -> None:
    """Raises Mistake."""
    if not (test.in_interface or test.out_interface):
        hint = "write in: for a packet that arrives, out: for one that this host sends, both for one that is forwarded"
        raise Mistake(line, "no interface is named", hint)
    if test.in_interface and (test.uid or test.gid):
        raise Mistake(line, "uid and gid are those of a program of this host that sends a packet", "remove uid or in")


def _check_protocol(test: PolicyTest, line: int) -> None:
    """Raises Mistake."""
    if not test.proto:
        raise Mistake(line, "proto is missing", "write proto: tcp, udp, icmp, icmpv6, sctp or a number")
    for name in test.proto:
        _check_ports(test, name, line)
    if test.icmp_type and not _ICMP.issuperset(test.proto):
        raise Mistake(line, "icmp-type goes with proto: icmp and icmpv6 only")
    if test.flags and test.proto != ("tcp",):
        raise Mistake(line, "flags go with proto: tcp only")


_ICMP = frozenset({"icmp", "icmpv6"})


def _check_ports(test: PolicyTest, name: str, line: int) -> None:
    """Raises Mistake."""
    if name in PORT_PROTOCOLS:
        if not test.dport:
            raise Mistake(line, f"dport is missing: a packet of {name} goes to a port")
    elif test.dport or test.sport:
        raise Mistake(line, f"sport and dport do not go with proto: {name}, which has no ports")


def _limited(test: PolicyTest, own: _Values) -> PolicyTest:
    """The test with the families that its addresses and protocols have. Raises Mistake where none is left."""
    sources, destinations = _of_addresses(test.source), _of_addresses(test.destination)
    families = _of_protocols(test.proto) & frozenset(test.family) & (sources or _BOTH) & (destinations or _BOTH)
    differ = {"from", "to"} <= own.keys() and sources != destinations
    if differ or not families:
        raise Mistake(test.origin.line, _mixed(test), "write one test for each family")
    return replace(test, family=tuple(filter(families.__contains__, FAMILIES)))


def _mixed(test: PolicyTest) -> str:
    """What does not fit together: addresses, protocol and family."""
    parts: list[str] = []
    for name, families in (
        ("from", _of_addresses(test.source)),
        ("to", _of_addresses(test.destination)),
        ("proto", _of_protocols(test.proto)),
        ("family", frozenset(test.family)),
    ):
        if families and families != frozenset(FAMILIES):
            parts.append(f"{name} is of {FAMILY_NAMES[next(iter(families))]}")
        elif families and name in ("from", "to"):
            parts.append(f"{name} is of both families")
    return f"the families do not fit together: {', '.join(parts)}"


def _of_addresses(values: Iterable[Address]) -> frozenset[Family]:
    return frozenset(family_of(address) for address in values)


def _of_protocols(names: Iterable[str]) -> frozenset[Family]:
    found: set[Family] = set()
    for name in names:
        if name != "icmpv6":
            found.add(Family.IPV4)
        if name != "icmp":
            found.add(Family.IPV6)
    return frozenset(found)
