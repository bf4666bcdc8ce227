"""The keys of policy tests and invariants, and how the values of each are read from a file.

Every mistake has a line. A list or a range of values means each of them.

This module is pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fwguardd.packets import case_values
from fwguardd.packets.case_values import MOST_PACKETS, did_you_mean
from fwguardd.packets.model import ConnectionState, Verdict
from fwguardd.packets.yaml_tree import ListNode, MapNode, Node, Scalar
from fwguardd.values import dataclass
from fwguardd.wording import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LONGEST_INTERFACE = 15
"""Characters of the name of an interface (IFNAMSIZ, linux/if.h, less the final NUL)."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """The numbers of users and groups by their names, for ``uid`` and ``gid``; None for a name that there is not."""

    user: Callable[[str], int | None]
    group: Callable[[str], int | None]


class Mistake(Exception):  # noqa: N818 - control flow between readers; it never leaves them.
    """What is wrong at a line of a file, and what to do."""

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line, self.hint = line, hint


_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}

ONE_VALUE = frozenset({"expect", "because", "fragment"})
"""Keys that take no list."""

Readers = dict[str, "Callable[[str], tuple[Any, ...]]"]
"""The function that reads one value of each key; all raise ValueError."""


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


def readers_of(accounts: Accounts) -> Readers:
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


def is_empty(node: Node) -> bool:
    """Whether nothing is written there."""
    return isinstance(node, Scalar) and not node.text and not node.quoted


def mapping(node: Node, known: tuple[str, ...], what: str, expected: str) -> dict[str, Node]:
    """The values of a mapping by their keys, each of which is known and occurs once. Raises Mistake."""
    if not isinstance(node, MapNode):
        raise Mistake(node.line, expected)
    values: dict[str, Node] = {}
    for key, value in node.entries:
        if key.text not in known:
            raise Mistake(key.line, f"unknown key {quoted(key.text)} in {what}{did_you_mean(key.text, known)}")
        if key.text in values:
            raise Mistake(key.line, f"{key.text} is given twice in {what}", "write a list: [A, B]")
        values[key.text] = value
    return values


def read_values(key: str, node: Node, read: Callable[[str], tuple[Any, ...]]) -> tuple[Any, ...]:
    """The values of one key, in order, each once. Raises Mistake."""
    if isinstance(node, ListNode) and key not in ONE_VALUE:
        values: dict[Any, None] = {}
        for item in node.items:
            values.update(dict.fromkeys(_read_one(key, item, read)))
            if len(values) > MOST_PACKETS:
                raise Mistake(item.line, f"{key}: more than {MOST_PACKETS:,} values", "name fewer, or shorter ranges")
        if not values:
            raise Mistake(node.line, f"{key}: the list is empty")
        return tuple(values)
    return _read_one(key, node, read)


def _read_one(key: str, node: Node, read: Callable[[str], tuple[Any, ...]]) -> tuple[Any, ...]:
    """Raises Mistake."""
    if not isinstance(node, Scalar):
        raise Mistake(node.line, f"{key}: expected one value")
    if not node.text:
        raise Mistake(node.line, f"{key}: a value is missing")
    try:
        return read(node.text)
    except ValueError as error:
        raise Mistake(node.line, f"{key}: {error}") from error
