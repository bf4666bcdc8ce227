"""fwguardd.yaml -> Settings. Every default is defined here, and every error names the file, the line and what is valid.

The file may be missing, because every key has a default. An unknown key, a wrong type or a wrong unit is an error: a
setting that is silently not in force is worse than a daemon that does not start.
"""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fwguardd.defaults import RUNTIME_DIR, SETTINGS_PATH
from fwguardd.denials.aggregation import AggregationLimits
from fwguardd.denials.model import Meaning, Watched
from fwguardd.denials.sources import SourceChoice
from fwguardd.errors import ReportedError
from fwguardd.kernel.iptables import Backend
from fwguardd.ruleset.lint import LintContext
from fwguardd.ruleset.list_sources import ListSource
from fwguardd.ruleset.preserve import Preserve
from fwguardd.ruleset.program_lookup import DEFAULTS, UnknownProgramError, expand_patterns
from fwguardd.ruleset.set_files import bad_name
from fwguardd.setting_nodes import SCALAR, SettingsTextError, compose
from fwguardd.setting_values import (
    SettingFault,
    address_and_port,
    addresses_of,
    by_value,
    choice,
    guarded_ports,
    line_of,
    list_of,
    optional_path,
    optional_seconds,
    pairs_of,
    path_of,
    seconds,
    text_of,
    whole,
)
from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ipaddress import IPv4Address, IPv6Address

    from fwguardd.setting_nodes import SettingNode

DEFAULT_PATH = SETTINGS_PATH
LARGEST_FILE = 1 << 20
"""Bytes that a settings file may have."""

DEFAULT_PRESERVE = expand_patterns([DEFAULTS])

DEFAULT_PREFIXES = (
    Watched("denied", "iptables denied: ", Meaning.DENIED),
    Watched("output", "[Output Log] ", Meaning.DENIED),
)

DEFAULT_LIMITS = AggregationLimits()


class LogFormat(Enum):
    """Where events are written, and in which form. AUTO is the journal under systemd; elsewhere it is CONSOLE on a
    terminal and JSON otherwise."""

    AUTO = "auto"
    JOURNAL = "journal"
    JSON = "json"
    CONSOLE = "console"


class Foreign(Enum):
    """What becomes of rules that another process adds to an owned table."""

    KEEP_SERVICES = "keep-services"
    REMOVE = "remove"


class OnDrift(Enum):
    """What to do about drift."""

    REPAIR = "repair"
    REPORT = "report"


class OnUndecided(Enum):
    """What to do about a policy test that packets cannot decide."""

    WARN = "warn"
    FAIL = "fail"


class ApplyMode(Enum):
    """When changed rule files are applied: by themselves, or by a reload only."""

    AUTO = "auto"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where metrics go: the file that the daemon writes, if any, and the address and port that
    fwguardd-metrics.service listens at."""

    textfile: Path | None = None
    listen: tuple[str, int] = ("127.0.0.1", 9786)


@dataclass(frozen=True, slots=True)
class Settings:
    """What an administrator can choose. Durations are in seconds; ``backend`` None means whichever iptables is,
    ``emergency_dir`` None means that nothing is loaded after an undo that failed, and ``confirm_changes`` None that
    changed files need no confirmation."""

    rules_dir: Path = Path("/etc/fwguard.d")
    state_dir: Path = Path("/var/lib/fwguard")
    runtime_dir: Path = RUNTIME_DIR
    backend: Backend | None = None
    log: LogFormat = LogFormat.AUTO
    apply: ApplyMode = ApplyMode.AUTO
    confirm_changes: float | None = None
    settle: float = 0.2
    settle_max: float = 2.0
    drift_interval: float = 60.0
    on_drift: OnDrift = OnDrift.REPAIR
    foreign: Foreign = Foreign.KEEP_SERVICES
    undecided: OnUndecided = OnUndecided.WARN
    lockout_guard: bool = True
    lockout_ports: tuple[int, ...] = ()
    lockout_peers: tuple[IPv4Address | IPv6Address, ...] = ()
    preserve: tuple[str, ...] = DEFAULT_PRESERVE
    source: SourceChoice = SourceChoice.AUTO
    nflog_group: int = 5
    prefixes: tuple[Watched, ...] = DEFAULT_PREFIXES
    denials_window: float = DEFAULT_LIMITS.window
    denials_first: int = DEFAULT_LIMITS.first
    denials_per_second: int = DEFAULT_LIMITS.per_second
    denials_flows: int = DEFAULT_LIMITS.flows
    scan_ports: int = DEFAULT_LIMITS.scan_ports
    sweep_hosts: int = DEFAULT_LIMITS.sweep_hosts
    keep_revisions: int = 50
    emergency_dir: Path | None = Path("/usr/share/fwguardd")
    lists: tuple[ListSource, ...] = ()
    lists_dir: Path = Path("/var/lib/fwguard-lists")
    metrics: MetricsSettings = MetricsSettings()

    def limits(self) -> AggregationLimits:
        """How many denials are reported as single events, and how many are counted in summaries."""
        return AggregationLimits(
            self.denials_window,
            self.denials_first,
            self.denials_per_second,
            self.denials_flows,
            self.scan_ports,
            self.sweep_hosts,
        )

    def lint_context(self) -> LintContext:
        """What the lint of rule files needs of the settings, and the time."""
        prefixes = tuple(watched.prefix for watched in self.prefixes)
        lists = frozenset(source.name for source in self.lists)
        return LintContext(prefixes, Preserve.from_patterns(self.preserve), datetime.now(UTC), lists)


class SettingsError(ReportedError):
    """Settings that cannot be used. The message names file, line and fault."""

    def __init__(self, path: Path, line: int, message: str) -> None:
        place = str(path)
        if line:
            place = f"{path}:{line}"
        super().__init__(f"{place}: error: {message}")


def settings_of(path: Path) -> Settings:
    """The settings of the file that the command line names; only the default file may be missing. Raises
    SettingsError."""
    return load_settings(path, must_exist=path != DEFAULT_PATH)


def load_settings(path: Path = DEFAULT_PATH, *, must_exist: bool = False) -> Settings:
    """The settings of a file; the defaults where there is none, unless it ``must_exist``. Raises SettingsError."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        if must_exist:
            raise SettingsError(path, 0, "the settings file does not exist") from None
        return Settings()
    except OSError as error:
        raise SettingsError(path, 0, f"cannot be read: {error.strerror}") from error
    return read_settings(path, data)


def read_settings(path: Path, data: bytes) -> Settings:
    """The settings that the bytes of a file say. Raises SettingsError."""
    if len(data) > LARGEST_FILE:
        raise SettingsError(path, 0, f"larger than {LARGEST_FILE} bytes")
    try:
        return Settings(**_values(compose(data)))
    except UnicodeDecodeError as error:
        raise SettingsError(path, data.count(b"\n", 0, error.start) + 1, "not UTF-8") from error
    except SettingsTextError as error:
        raise SettingsError(path, error.line, f"not YAML: {error}") from error
    except RecursionError as error:
        raise SettingsError(path, 0, "nested too deeply") from error
    except SettingFault as fault:
        raise SettingsError(path, fault.line, str(fault)) from fault


def _values(node: SettingNode | None) -> dict[str, Any]:
    if node is None:
        return {}
    return {key: _value(key, value) for key, value in pairs_of(node, _READERS, "the file").items()}


def _value(key: str, node: SettingNode) -> Any:
    try:
        return _READERS[key](node)
    except SettingFault as fault:
        raise SettingFault(fault.line, f"{key}: {fault}") from fault


def _patterns(node: SettingNode) -> tuple[str, ...]:
    try:
        return expand_patterns(text_of(entry) for entry in list_of(node))
    except UnknownProgramError as error:
        raise SettingFault(line_of(node), str(error)) from error


def _prefixes(node: SettingNode) -> tuple[Watched, ...]:
    watched: dict[str, Watched] = {}
    for entry in list_of(node):
        prefix = _prefix(entry)
        if prefix.prefix in watched:
            raise SettingFault(line_of(node), f"the prefix {prefix.prefix!r} is listed twice")
        watched[prefix.prefix] = prefix
    return tuple(watched.values())


def _prefix(node: SettingNode) -> Watched:
    pairs = pairs_of(node, dict.fromkeys(("name", "prefix", "meaning")), "a prefix")
    for key in ("name", "prefix"):
        if key not in pairs:
            raise SettingFault(line_of(node), f"the {key} of the prefix is missing")
    meaning = _meaning(pairs)
    return Watched(text_of(pairs["name"]), _prefix_text(pairs["prefix"]), meaning)


def _meaning(pairs: Mapping[str, SettingNode]) -> Meaning:
    meaning = Meaning.DENIED
    if "meaning" in pairs:
        meaning = choice(by_value(Meaning))(pairs["meaning"])
    return meaning


def _prefix_text(node: SettingNode) -> str:
    """A log prefix. It may be empty, for rules without one, and must then be in quotes: no value is a mistake."""
    if node.id == SCALAR and node.style and not node.value:
        return ""
    return text_of(node)


def _lists(node: SettingNode) -> tuple[ListSource, ...]:
    lists: dict[str, ListSource] = {}
    for entry in list_of(node):
        source = _list(entry)
        if source.name in lists:
            raise SettingFault(line_of(entry), f"the list {source.name!r} is listed twice")
        lists[source.name] = source
    return tuple(lists.values())


def _list(node: SettingNode) -> ListSource:
    pairs = pairs_of(node, dict.fromkeys(("name", "url", "hosts", "every")), "a list")
    if "name" not in pairs or ("url" in pairs) == ("hosts" in pairs):
        raise SettingFault(line_of(node), "a list has a name, and either a url or hosts")
    name = text_of(pairs["name"])
    if bad_name(f"{name}.set") is not None:
        raise SettingFault(line_of(node), f"{name!r} is not a name that a set can have")
    every = 86400.0
    if "every" in pairs:
        every = seconds(60.0, 7 * 86400.0)(pairs["every"])
    if "url" in pairs:
        return ListSource(name, url=_https(pairs["url"]), every=every)
    return ListSource(name, hosts=tuple(text_of(host) for host in list_of(pairs["hosts"])), every=every)


def _https(node: SettingNode) -> str:
    url = text_of(node)
    if not url.startswith("https://"):
        raise SettingFault(line_of(node), f"{url!r} is not an https address")
    return url


def _metrics(node: SettingNode) -> MetricsSettings:
    settings = MetricsSettings()
    pairs = pairs_of(node, dict.fromkeys(("textfile", "listen")), "metrics")
    if "textfile" in pairs:
        settings = replace(settings, textfile=optional_path(pairs["textfile"]))
    if "listen" in pairs:
        settings = replace(settings, listen=address_and_port(pairs["listen"]))
    return settings


BACKEND_CHOICES: dict[str, Backend | None] = {"auto": None, **by_value(Backend)}
LOG_CHOICES = by_value(LogFormat)

_READERS: dict[str, Callable[[SettingNode], Any]] = {
    "rules_dir": path_of,
    "state_dir": path_of,
    "runtime_dir": path_of,
    "backend": choice(BACKEND_CHOICES),
    "log": choice(LOG_CHOICES),
    "apply": choice(by_value(ApplyMode)),
    "confirm_changes": optional_seconds(1.0, 86400.0),
    "settle": seconds(0.0, 60.0),
    "settle_max": seconds(0.0, 600.0),
    "drift_interval": seconds(0.1, 86400.0),
    "on_drift": choice(by_value(OnDrift)),
    "foreign": choice(by_value(Foreign)),
    "undecided": choice(by_value(OnUndecided)),
    "lockout_guard": choice({"on": True, "off": False}),
    "lockout_ports": guarded_ports,
    "lockout_peers": addresses_of,
    "preserve": _patterns,
    "source": choice(by_value(SourceChoice)),
    "nflog_group": whole(0, 65535),
    "prefixes": _prefixes,
    "denials_window": seconds(0.0, 86400.0),
    "denials_first": whole(0, 1_000_000),
    "denials_per_second": whole(0, 1_000_000),
    "denials_flows": whole(1, 10_000),
    "scan_ports": whole(0, 1000),
    "sweep_hosts": whole(0, 1000),
    "keep_revisions": whole(1, 10_000),
    "emergency_dir": optional_path,
    "lists": _lists,
    "lists_dir": path_of,
    "metrics": _metrics,
}

assert set(_READERS) == {setting.name for setting in fields(Settings)}
