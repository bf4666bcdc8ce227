"""The verb services: the services that allow and deny know by name."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from fwguardd.ctl.service_table import known_services
from fwguardd.ctl.terminal import Painter
from fwguardd.ctl.verb_options import add_json, describe
from fwguardd.escaping import printable
from fwguardd.ruleset.services import ServiceError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from fwguardd.ruleset.services import Service

_DONE, _FAILED = 0, 5
_ABOUT = 39
"""The column in which the words about a service begin."""


def add_arguments(parser: argparse.ArgumentParser, _verb: str) -> None:
    """Add the help and the option."""
    description = (
        "List the services that allow and deny know by name, with their ports. Files in /etc/fwguard/services.d add to "
        "them; names of /etc/services can be used, too."
    )
    examples = (
        ("fwguardctl services", "all, one on a line"),
        ("fwguardctl services --json", "for programs"),
    )
    describe(parser, description, examples)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print the services."""
    try:
        services = known_services()
    except ServiceError as error:
        print(f"fwguardctl: {printable(str(error))}", file=sys.stderr)
        return _FAILED
    if options.json:
        print(json.dumps({"services": [_document(service) for service in services.values()]}))
    else:
        _print_table(services.values())
    return _DONE


def _document(service: Service) -> dict[str, object]:
    ports = [str(one) for one in service.ports]
    return {"name": service.name, "ports": ports, "about": service.about, "helper": service.helper or None}


def _print_table(services: Iterable[Service]) -> None:
    painter = Painter()
    for service in sorted(services, key=_name):
        ports = " ".join(dict.fromkeys(map(str, service.ports))) or "icmp, icmpv6"
        print(painter.fit(printable(f"{service.name:17} {ports:20} {service.about}".rstrip()), indent=_ABOUT))


def _name(service: Service) -> str:
    return service.name
