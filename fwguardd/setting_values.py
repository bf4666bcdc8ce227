"""The values of settings: nodes of YAML -> values, or `SettingFault` with the line and what is valid."""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fwguardd.patterns import pattern
from fwguardd.setting_nodes import MAPPING, SCALAR, SEQUENCE
from fwguardd.wording import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fwguardd.setting_nodes import SettingNode

Choice = TypeVar("Choice", bound=Enum)


class SettingFault(Exception):  # noqa: N818 - control flow; it never leaves `fwguardd.settings`.
    """A fault in a line of the settings file."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def by_value(choices: type[Choice]) -> dict[str, Choice]:
    """The members of an enumeration by the values that stand for them in the settings."""
    return {choice.value: choice for choice in choices}


def pairs_of(node: SettingNode, known: Mapping[str, object], what: str) -> dict[str, SettingNode]:
    """The entries of a mapping, in which every key is known and occurs once."""
    if node.id != MAPPING:
        raise SettingFault(line_of(node), f'expected "key: value" lines in {what}')
    pairs: dict[str, SettingNode] = {}
    for key_node, value in node.value:
        key = str(key_node.value)
        if key not in known:
            raise SettingFault(line_of(key_node), f"unknown setting {key!r}{_similar(key, known)}")
        if key in pairs:
            raise SettingFault(line_of(key_node), f"setting {key!r} is set twice")
        pairs[key] = value
    return pairs


def _similar(key: str, known: Mapping[str, object]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake pays for this import.

    close = get_close_matches(key, list(known), 1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; the settings are {', '.join(sorted(known))}"


def line_of(node: SettingNode) -> int:
    """The line of a node, counted from 1."""
    return int(node.start_mark.line) + 1


def text_of(node: SettingNode) -> str:
    """A text that is not empty."""
    if node.id != SCALAR or node.value == "":
        raise SettingFault(line_of(node), "expected a string")
    return str(node.value)


def path_of(node: SettingNode) -> Path:
    """An absolute path."""
    path = Path(text_of(node))
    if not path.is_absolute():
        raise SettingFault(line_of(node), f"{str(path)!r} is not an absolute path")
    return path


def optional_path(node: SettingNode) -> Path | None:
    """An absolute path, or None for the word none."""
    if node.id == SCALAR and node.value == "none":
        return None
    return path_of(node)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def whole(least: int, most: int) -> Callable[[SettingNode], int]:
    """A reader of whole numbers between these bounds."""

    def read(node: SettingNode) -> int:
        text = text_of(node)
        if not (_is_number(text) and least <= int(text[:9]) <= most):
            raise SettingFault(line_of(node), f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return read


def seconds(least: float, most: float) -> Callable[[SettingNode], float]:
    """A reader of durations between these bounds, in seconds."""

    def read(node: SettingNode) -> float:
        try:
            value = duration(text_of(node))
        except ValueError as error:
            raise SettingFault(line_of(node), str(error)) from error
        if not least <= value <= most:
            raise SettingFault(line_of(node), f"{node.value} is out of range: from {least:g}s to {most:g}s")
        return value

    return read


def optional_seconds(least: float, most: float) -> Callable[[SettingNode], float | None]:
    """The same, which reads None from the word none."""
    read = seconds(least, most)

    def read_or_none(node: SettingNode) -> float | None:
        if node.id == SCALAR and node.value == "none":
            return None
        return read(node)

    return read_or_none


def choice(choices: Mapping[str, Any]) -> Callable[[SettingNode], Any]:
    """A reader of one of these words."""

    def read(node: SettingNode) -> Any:
        text = text_of(node)
        if text not in choices:
            raise SettingFault(line_of(node), f"{text!r} is not one of {', '.join(choices)}")
        return choices[text]

    return read


def list_of(node: SettingNode) -> list[SettingNode]:
    """The entries of a list."""
    if node.id != SEQUENCE:
        raise SettingFault(line_of(node), "expected a list; write each entry on a line of its own after a dash")
    return list(node.value)


def guarded_ports(node: SettingNode) -> tuple[int, ...]:
    """The ports of a list; none for the word auto."""
    if node.id == SCALAR and node.value == "auto":
        return ()
    ports = tuple(map(whole(1, 65535), list_of(node)))
    if not ports:
        message = "the list of ports is empty; write auto for those of sshd, or lockout_guard: off"
        raise SettingFault(line_of(node), message)
    return ports


def addresses_of(node: SettingNode) -> tuple[IPv4Address | IPv6Address, ...]:
    """The addresses of a list."""
    found: list[IPv4Address | IPv6Address] = []
    for entry in list_of(node):
        try:
            found.append(ip_address(text_of(entry)))
        except ValueError:
            raise SettingFault(line_of(entry), f"{entry.value!r} is not an IPv4 or IPv6 address") from None
    return tuple(found)


_ENDPOINT = pattern(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>[0-9.]+)):(?P<port>[0-9]{1,5})")


def address_and_port(node: SettingNode) -> tuple[str, int]:
    """An address and a TCP port, such as 127.0.0.1:9786 or [::1]:9786."""
    found = _ENDPOINT.fullmatch(text_of(node))
    fault = SettingFault(
        line_of(node), f"{node.value!r} is not an address and a port, such as 127.0.0.1:9786 or [::1]:9786"
    )
    if found is None or not 1 <= int(found["port"]) <= 65535:
        raise fault
    try:
        return str(ip_address(found["v6"] or found["v4"])), int(found["port"])
    except ValueError:
        raise fault from None
