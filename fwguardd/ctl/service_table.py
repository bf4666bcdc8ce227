"""The services that fwguardctl knows by name: the table that ships, files that add to it, and services(5)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from fwguardd.ruleset.services import Service, ServiceError, is_port, read_etc_services, read_table, service_of_port
from fwguardd.ruleset.suggestions import nearest_name

if TYPE_CHECKING:
    from collections.abc import Iterable

SHIPPED = Path(__file__).resolve().parents[1] / "services.yaml"
ADDED = Path("/etc/fwguard/services.d")
"""Files in this directory whose names end in .yaml add to the table, in the order of their names."""

ETC_SERVICES = Path("/etc/services")


def known_services(added: Path = ADDED) -> dict[str, Service]:
    """The services of the table, and those of the files that add to it. Raises ServiceError."""
    services = dict(_shipped())
    for path in _added_files(added):
        services |= _services_of(path)
    return services


@cache
def _shipped() -> dict[str, Service]:
    """The services of the table that ships. Raises ServiceError."""
    return _services_of(SHIPPED)


def _services_of(path: Path) -> dict[str, Service]:
    """The services of one file. Raises ServiceError."""
    try:
        return read_table(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ServiceError as error:
        raise ServiceError(f"{path}: {error}") from error
    except yaml.YAMLError as error:
        raise ServiceError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise ServiceError(f"{path} cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise ServiceError(f"{path}: nested too deeply") from error
    except ValueError as error:  # Not UTF-8, or what looks like a date or a number in YAML and is none.
        raise ServiceError(f"{path}: not a table of services: {error}") from error


def _added_files(directory: Path) -> list[Path]:
    """The files that add to the table, without hidden ones and backups."""
    return sorted(path for path in directory.glob("*.yaml") if not path.name.startswith("."))


def _other_services() -> dict[str, Service]:
    """The services of /etc/services; none where it cannot be read."""
    try:
        return read_etc_services(ETC_SERVICES.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}


def find_service(text: str, added: Path = ADDED) -> Service:
    """The service that a word on the command line names, or the port that it is. Raises ServiceError."""
    if is_port(text):
        return service_of_port(text)
    known = _other_services() | known_services(added)
    service = known.get(text.lower())
    if service is None:
        raise _unknown(text, known)
    return service


def names_of(text: str, added: Path = ADDED) -> tuple[str, ...]:
    """The names of services that listen on the same as the one with this name, which is the first; a port is a name
    too. A word that names no service stands for itself. Raises ServiceError for a broken table."""
    known = _other_services() | known_services(added)
    service = known.get(text)
    if is_port(text):
        service = service_of_port(text)
    if service is None:
        return (text,)
    names = {text: None}
    for name, other in known.items():
        if _listens_on(other) == _listens_on(service):
            names[name] = None
    if service == Service(service.name, service.ports[:1], service.about):
        names[str(service.ports[0])] = None
    return tuple(names)


def _listens_on(service: Service) -> Service:
    """What a service listens on, without its name."""
    return Service("", service.ports, "", service.helper, service.groups, service.ping)


def _unknown(text: str, known: Iterable[str]) -> ServiceError:
    """The error for a word that names no service."""
    if text.isdecimal():
        return ServiceError(f"{text} has no protocol; write {text}/tcp or {text}/udp")
    advice = "fwguardctl services lists those that are known; or write a port, such as 8080/tcp"
    nearest = nearest_name(text, known)
    if nearest:
        advice = f"did you mean {nearest}? {advice}"
    return ServiceError(f"there is no service {text!r}; {advice}")
