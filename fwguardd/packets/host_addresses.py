"""The addresses and networks in the document of a host: a text that is none is an error at its place.

This module is pure.
"""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

from fwguardd.packets.host import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fwguardd.packets.host import Hop, Host, Interface, Path, Route, RoutingRule

    _Part = Interface | Route | RoutingRule | Hop


def check_addresses(host: Host) -> None:
    """Raise HostError for a text that has to be an address, or a network, and is none."""
    lists: dict[str, tuple[_Part, ...]] = {"interfaces": host.interfaces, "routes": host.routes, "rules": host.rules}
    for key, parts in lists.items():
        for number, part in enumerate(parts):
            _check_addresses_of(part, (key, number))


def _is_interface(text: str) -> bool:
    return _is_read_by(ip_interface, text)


def _is_address(text: str) -> bool:
    return _is_read_by(ip_address, text)


def _is_read_by(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


_FORMS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "addresses": (_is_interface, "an address with its prefix length, such as 192.0.2.1/24"),
    "to": (_is_interface, "a network, such as 192.0.2.0/24"),
    "source": (_is_interface, "a network, such as 192.0.2.0/24"),
    "destination": (_is_interface, "a network, such as 192.0.2.0/24"),
    "via": (_is_address, "an address"),
    "src": (_is_address, "an address"),
}
"""What the texts under these keys have to be."""


def _check_addresses_of(part: _Part, path: Path) -> None:
    for one in fields(part):
        form, text = _FORMS.get(one.name), getattr(part, one.name)
        if one.name == "hops":
            for number, hop in enumerate(text):
                _check_addresses_of(hop, (*path, "hops", number))
        elif form is not None and text:
            _check_texts(text, form, (*path, one.name))


def _check_texts(text: str | tuple[str, ...], form: tuple[Callable[[str], bool], str], path: Path) -> None:
    """Raise HostError for a text, or the first one of several, that is not of this form."""
    is_right, wanted = form
    if isinstance(text, str):
        if not is_right(text):
            raise HostError(f'"{path[-1]}": expected {wanted}, not {text!r}', path)
        return
    for number, each in enumerate(text):
        if not is_right(each):
            raise HostError(f'"{path[-1]}": expected {wanted}, not {each!r}', (*path, number))
