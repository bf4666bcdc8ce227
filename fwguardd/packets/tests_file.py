"""Files of policy tests, ``NAME.tests.yaml`` beside the rules -> tests, or findings.

A test has the keys of `KEYS`; a list or a range of values means each of them, and a test with several of these means
every combination. ``defaults`` has values for the tests that do not have the key themselves; its interfaces are taken
only by tests that name none, so that a test with ``out`` is outbound whatever the defaults say. Every mistake is a
finding at its line.

packaging/policy.tests.schema.json says the same for editors.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from fwguardd.packets import case_values
from fwguardd.packets.case_values import MOST_PACKETS, PORT_PROTOCOLS, did_you_mean
from fwguardd.packets.model import ConnectionState, Verdict
from fwguardd.packets.policy_tests import BAD_TEST, FAMILY_NAMES, PolicyTest, family_of
from fwguardd.packets.yaml_tree import ListNode, MapNode, Node, NotYamlError, Scalar, read_tree
from fwguardd.ruleset.model import FAMILIES, MOST_FINDINGS, NO_FINDINGS, Family, Finding, Findings, Origin
from fwguardd.values import dataclass
from fwguardd.wording import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fwguardd.packets.case_values import Address
    from fwguardd.ruleset.model import RuleFile

LONGEST_INTERFACE = 15
"""Characters of the name of an interface (IFNAMSIZ, linux/if.h, less the final NUL)."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """The numbers of users and groups by their names, for ``uid`` and ``gid``; None for a name that there is not."""

    user: Callable[[str], int | None]
    group: Callable[[str], int | None]


@dataclass(frozen=True, slots=True)
class PolicyTests:
    """The tests of all files, in order, and the findings about the files. With an error there may be tests missing."""

    tests: tuple[PolicyTest, ...]
    findings: Findings


_MOST_VALUES = 5 * MOST_PACKETS
"""Values of all tests of a file. Tests that may be sent have fewer; a small file can name more than there is memory
for, such as all ports in each of a thousand tests."""

NO_TESTS = PolicyTests((), NO_FINDINGS)


class _Mistake(Exception):  # noqa: N818 - control flow inside this module; it never leaves it.
    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line, self.hint = line, hint


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

_ONE_VALUE = frozenset({"expect", "because", "fragment"})
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


def read_policy_tests(files: Iterable[RuleFile], accounts: Accounts) -> PolicyTests:
    """The tests of these files."""
    tests: list[PolicyTest] = []
    findings: list[Finding] = []
    for file in files:
        reader = _FileReader(file.path, accounts)
        tests += reader.tests(file.data)
        findings += _with_lines(Findings(reader.findings), file)
    return PolicyTests(tuple(tests), Findings(findings))


def _with_lines(findings: Findings, file: RuleFile) -> Findings:
    if not findings:
        return findings
    return findings.with_lines({file.path: file.data.decode("utf-8", "replace").splitlines()})


def _word(choices: Mapping[str, Any], what: str) -> Callable[[str], tuple[Any, ...]]:
    """A reader of one of these words."""

    def read(text: str) -> tuple[Any, ...]:
        if text.lower() not in choices:
            raise ValueError(f"{quoted(text)} is not {what}{did_you_mean(text, choices)}")
        return (choices[text.lower()],)

    return read


def _interface(text: str) -> tuple[str]:
    if len(text) > LONGEST_INTERFACE or "/" in text or not text.isprintable() or " " in text:
        raise ValueError(f"{quoted(text)} is not the name of an interface")
    return (text,)


def _mark(text: str) -> tuple[int]:
    return (case_values.whole(text, 2**32 - 1, "mark"),)


def _protocol(text: str) -> tuple[str]:
    return (case_values.protocol(text),)


def _flags(text: str) -> tuple[frozenset[str]]:
    return (case_values.flags(text),)


def _plain(text: str) -> tuple[str]:
    return (text,)


def _account(find: Callable[[str], int | None], what: str) -> Callable[[str], tuple[int]]:
    """A reader of a user or a group, by name or number."""

    def read(text: str) -> tuple[int]:
        if text.isdigit():
            return (case_values.whole(text, 2**32 - 2, what),)
        number = find(text)
        if number is None:
            raise ValueError(f"this host has no {what} {quoted(text)}; write the number to test for another host")
        return (number,)

    return read


def _readers(accounts: Accounts) -> Mapping[str, Callable[[str], tuple[Any, ...]]]:
    """The function that reads one value of each key; all raise ValueError."""
    states: dict[str, ConnectionState] = {state.value: state for state in ConnectionState}
    verdicts: dict[str, Verdict] = {verdict.value: verdict for verdict in Verdict}
    return {
        "expect": _word(verdicts, "a verdict"),
        "because": _plain,
        "family": case_values.families,
        "proto": _protocol,
        "from": case_values.addresses,
        "to": case_values.addresses,
        "sport": case_values.ports,
        "dport": case_values.ports,
        "in": _interface,
        "out": _interface,
        "icmp-type": case_values.icmp_types,
        "state": _word(states, "a state"),
        "uid": _account(accounts.user, "user"),
        "gid": _account(accounts.group, "group"),
        "mark": _mark,
        "flags": _flags,
        "fragment": _word(_TRUTHS, "true or false"),
    }


@dataclass(slots=True)
class _FileReader:
    """Reads one file, and notes its mistakes."""

    path: str
    accounts: Accounts
    findings: list[Finding] = field(default_factory=list)

    def tests(self, data: bytes) -> list[PolicyTest]:
        """The tests of a file, without those that have mistakes."""
        try:
            root = read_tree(data)
            if root is None:
                return []
            return self._of_root(root)
        except NotYamlError as error:
            self._note(error.line, str(error))
        except _Mistake as mistake:
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
        """Raises _Mistake for a file that is not a mapping of defaults and tests."""
        parts = _mapping(root, ("defaults", "tests"), "the file", 'expected "tests:" with a list of tests')
        readers = _readers(self.accounts)
        defaults: _Values = {}
        if "defaults" in parts and not _is_empty(parts["defaults"]):
            defaults = self._values(parts["defaults"], readers, "the defaults")
        listed = parts.get("tests")
        if listed is None or _is_empty(listed):
            return []
        if not isinstance(listed, ListNode):
            raise _Mistake(listed.line, "tests: expected a list, each test after a dash")
        return self._of_list(listed, defaults, readers)

    def _of_list(
        self, listed: ListNode, defaults: _Values, readers: Mapping[str, Callable[[str], tuple[Any, ...]]]
    ) -> list[PolicyTest]:
        tests: list[PolicyTest] = []
        left = _MOST_VALUES
        for node in listed.items:
            known = len(self.findings)
            try:
                values = self._values(node, readers, "a test")
                left -= sum(map(len, values.values()))
                if left < 0:
                    self._note(node.line, "the tests have too many values", "name fewer values, or shorter ranges")
                    break
                if len(self.findings) == known:
                    tests.append(_test(Origin(self.path, node.line), values, defaults))
            except _Mistake as mistake:
                self._note(mistake.line, str(mistake), mistake.hint)
        return tests

    def _values(self, node: Node, readers: Mapping[str, Callable[[str], tuple[Any, ...]]], what: str) -> _Values:
        """The values of each key; those with a mistake are noted and left out. Raises _Mistake for a node without
        keys."""
        values: _Values = {}
        for key, value in _mapping(node, KEYS, what, f'expected "key: value" in {what}').items():
            try:
                values[key] = _read_values(key, value, readers[key])
            except _Mistake as mistake:
                self._note(mistake.line, str(mistake), mistake.hint)
        return values


def _is_empty(node: Node) -> bool:
    return isinstance(node, Scalar) and not node.text and not node.quoted


def _mapping(node: Node, known: tuple[str, ...], what: str, expected: str) -> dict[str, Node]:
    """The values of a mapping by their keys, each of which is known and occurs once. Raises _Mistake."""
    if not isinstance(node, MapNode):
        raise _Mistake(node.line, expected)
    values: dict[str, Node] = {}
    for key, value in node.entries:
        if key.text not in known:
            raise _Mistake(key.line, f"unknown key {quoted(key.text)} in {what}{did_you_mean(key.text, known)}")
        if key.text in values:
            raise _Mistake(key.line, f"{key.text} is given twice in {what}", "write a list: [A, B]")
        values[key.text] = value
    return values


def _read_values(key: str, node: Node, read: Callable[[str], tuple[Any, ...]]) -> tuple[Any, ...]:
    """The values of one key, in order, each once. Raises _Mistake."""
    if isinstance(node, ListNode) and key not in _ONE_VALUE:
        values: dict[Any, None] = {}
        for item in node.items:
            values.update(dict.fromkeys(_read_one(key, item, read)))
            if len(values) > MOST_PACKETS:
                raise _Mistake(item.line, f"{key}: more than {MOST_PACKETS:,} values", "name fewer, or shorter ranges")
        if not values:
            raise _Mistake(node.line, f"{key}: the list is empty")
        return tuple(values)
    return _read_one(key, node, read)


def _read_one(key: str, node: Node, read: Callable[[str], tuple[Any, ...]]) -> tuple[Any, ...]:
    """Raises _Mistake."""
    if not isinstance(node, Scalar):
        raise _Mistake(node.line, f"{key}: expected one value")
    if not node.text:
        raise _Mistake(node.line, f"{key}: a value is missing")
    try:
        return read(node.text)
    except ValueError as error:
        raise _Mistake(node.line, f"{key}: {error}") from error


def _test(origin: Origin, own: _Values, defaults: _Values) -> PolicyTest:
    """A test of its own values and of the defaults. Raises _Mistake."""
    values = _with_defaults(own, defaults)
    if "expect" not in values:
        raise _Mistake(origin.line, "expect is missing", "write expect: accept, drop or reject")
    fields: dict[str, Any] = {}
    for key, value in values.items():
        fields[_FIELDS.get(key, key)] = value
    for key in _ONE_VALUE & fields.keys():
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
    """Raises _Mistake."""
    if not (test.in_interface or test.out_interface):
        hint = "write in: for a packet that arrives, out: for one that this host sends, both for one that is forwarded"
        raise _Mistake(line, "no interface is named", hint)
    if test.in_interface and (test.uid or test.gid):
        raise _Mistake(line, "uid and gid are those of a program of this host that sends a packet", "remove uid or in")


def _check_protocol(test: PolicyTest, line: int) -> None:
    """Raises _Mistake."""
    if not test.proto:
        raise _Mistake(line, "proto is missing", "write proto: tcp, udp, icmp, icmpv6, sctp or a number")
    for name in test.proto:
        _check_ports(test, name, line)
    if test.icmp_type and not _ICMP.issuperset(test.proto):
        raise _Mistake(line, "icmp-type goes with proto: icmp and icmpv6 only")
    if test.flags and test.proto != ("tcp",):
        raise _Mistake(line, "flags go with proto: tcp only")


_ICMP = frozenset({"icmp", "icmpv6"})


def _check_ports(test: PolicyTest, name: str, line: int) -> None:
    """Raises _Mistake."""
    if name in PORT_PROTOCOLS:
        if not test.dport:
            raise _Mistake(line, f"dport is missing: a packet of {name} goes to a port")
    elif test.dport or test.sport:
        raise _Mistake(line, f"sport and dport do not go with proto: {name}, which has no ports")


def _limited(test: PolicyTest, own: _Values) -> PolicyTest:
    """The test with the families that its addresses and protocols have. Raises _Mistake where none is left."""
    sources, destinations = _of_addresses(test.source), _of_addresses(test.destination)
    families = _of_protocols(test.proto) & frozenset(test.family) & (sources or _BOTH) & (destinations or _BOTH)
    differ = {"from", "to"} <= own.keys() and sources != destinations
    if differ or not families:
        raise _Mistake(test.origin.line, _mixed(test), "write one test for each family")
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
