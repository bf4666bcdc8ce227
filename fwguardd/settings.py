"""fwguardd.yaml -> Settings. Every default is defined here, and every error names the file, the line and what is valid.

The file may be missing, because every key has a default. An unknown key, a wrong type or a wrong unit is an error: a
setting that is silently not in force is worse than a daemon that does not start.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from fwguardd.defaults import RUNTIME_DIR, SETTINGS_PATH
from fwguardd.denials.aggregation import AggregationLimits
from fwguardd.denials.model import Meaning, Watched
from fwguardd.denials.sources import SourceChoice
from fwguardd.errors import ReportedError
from fwguardd.kernel.iptables import Backend
from fwguardd.ruleset.lint import LintContext
from fwguardd.ruleset.preserve import Preserve
from fwguardd.ruleset.program_lookup import DEFAULTS, UnknownProgramError, expand_patterns
from fwguardd.wording import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_Choice = TypeVar("_Choice", bound=Enum)

DEFAULT_PATH = SETTINGS_PATH
LARGEST_FILE = 1 << 20
"""Bytes that a settings file may have."""

DEFAULT_PRESERVE = expand_patterns([DEFAULTS])

DEFAULT_PREFIXES = (
    Watched("denied", "iptables denied: ", Meaning.DENIED),
    Watched("output", "[Output Log] ", Meaning.DENIED),
)

DEFAULT_LIMITS = AggregationLimits()


def _by_value(choices: type[_Choice]) -> dict[str, _Choice]:
    """The members of an enumeration by the values that stand for them in the settings."""
    return {choice.value: choice for choice in choices}


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


class ApplyMode(Enum):
    """When changed rule files are applied: by themselves, or by a reload only."""

    AUTO = "auto"
    MANUAL = "manual"


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
        return LintContext(prefixes, Preserve.from_patterns(self.preserve), datetime.now(UTC))


class SettingsError(ReportedError):
    """Settings that cannot be used. The message names file, line and fault."""

    def __init__(self, path: Path, line: int, message: str) -> None:
        place = str(path)
        if line:
            place = f"{path}:{line}"
        super().__init__(f"{place}: error: {message}")


class _Fault(Exception):  # noqa: N818 - control flow inside this module; it never leaves it.
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


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
        node = yaml.compose(data.decode("utf-8"), Loader=yaml.SafeLoader)
        return Settings(**_values(node))
    except UnicodeDecodeError as error:
        raise SettingsError(path, data.count(b"\n", 0, error.start) + 1, "not UTF-8") from error
    except yaml.YAMLError as error:
        raise _not_yaml(path, error) from error
    except RecursionError as error:
        raise SettingsError(path, 0, "nested too deeply") from error
    except _Fault as fault:
        raise SettingsError(path, fault.line, str(fault)) from fault


def _not_yaml(path: Path, error: yaml.YAMLError) -> SettingsError:
    """The error with the line of the fault, if the parser names it."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return SettingsError(path, 0, f"not YAML: {error}")
    mark = error.problem_mark
    return SettingsError(path, mark.line + 1 if mark else 0, f"not YAML: {error.problem}")


def _values(node: yaml.Node | None) -> dict[str, Any]:
    if node is None:
        return {}
    return {key: _value(key, value) for key, value in _pairs(node, _READERS, "the file").items()}


def _value(key: str, node: yaml.Node) -> Any:
    try:
        return _READERS[key](node)
    except _Fault as fault:
        raise _Fault(fault.line, f"{key}: {fault}") from fault


def _pairs(node: yaml.Node, known: Mapping[str, object], what: str) -> dict[str, yaml.Node]:
    """The entries of a mapping, in which every key is known and occurs once."""
    if not isinstance(node, yaml.MappingNode):
        raise _Fault(_line(node), f'expected "key: value" lines in {what}')
    pairs: dict[str, yaml.Node] = {}
    for key_node, value in node.value:
        key = str(key_node.value)
        if key not in known:
            raise _Fault(_line(key_node), f"unknown setting {key!r}{_similar(key, known)}")
        if key in pairs:
            raise _Fault(_line(key_node), f"setting {key!r} is set twice")
        pairs[key] = value
    return pairs


def _similar(key: str, known: Mapping[str, object]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only a mistake pays for this import.

    close = get_close_matches(key, list(known), 1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; the settings are {', '.join(sorted(known))}"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _text(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.value == "":
        raise _Fault(_line(node), "expected a string")
    return str(node.value)


def _path(node: yaml.Node) -> Path:
    path = Path(_text(node))
    if not path.is_absolute():
        raise _Fault(_line(node), f"{str(path)!r} is not an absolute path")
    return path


def _optional_path(node: yaml.Node) -> Path | None:
    if isinstance(node, yaml.ScalarNode) and node.value == "none":
        return None
    return _path(node)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _whole(least: int, most: int) -> Callable[[yaml.Node], int]:
    def read(node: yaml.Node) -> int:
        text = _text(node)
        if not (_is_number(text) and least <= int(text[:9]) <= most):
            raise _Fault(_line(node), f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return read


def _duration(least: float, most: float) -> Callable[[yaml.Node], float]:
    def read(node: yaml.Node) -> float:
        try:
            seconds = duration(_text(node))
        except ValueError as error:
            raise _Fault(_line(node), str(error)) from error
        if not least <= seconds <= most:
            raise _Fault(_line(node), f"{node.value} is out of range: from {least:g}s to {most:g}s")
        return seconds

    return read


def _optional_duration(least: float, most: float) -> Callable[[yaml.Node], float | None]:
    read = _duration(least, most)

    def read_or_none(node: yaml.Node) -> float | None:
        if isinstance(node, yaml.ScalarNode) and node.value == "none":
            return None
        return read(node)

    return read_or_none


def _choice(choices: Mapping[str, Any]) -> Callable[[yaml.Node], Any]:
    def read(node: yaml.Node) -> Any:
        text = _text(node)
        if text not in choices:
            raise _Fault(_line(node), f"{text!r} is not one of {', '.join(choices)}")
        return choices[text]

    return read


def _list(node: yaml.Node) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode):
        raise _Fault(_line(node), "expected a list; write each entry on a line of its own after a dash")
    return list(node.value)


def _patterns(node: yaml.Node) -> tuple[str, ...]:
    try:
        return expand_patterns(_text(entry) for entry in _list(node))
    except UnknownProgramError as error:
        raise _Fault(_line(node), str(error)) from error


def _prefixes(node: yaml.Node) -> tuple[Watched, ...]:
    watched: dict[str, Watched] = {}
    for entry in _list(node):
        prefix = _prefix(entry)
        if prefix.prefix in watched:
            raise _Fault(_line(node), f"the prefix {prefix.prefix!r} is listed twice")
        watched[prefix.prefix] = prefix
    return tuple(watched.values())


def _prefix(node: yaml.Node) -> Watched:
    pairs = _pairs(node, dict.fromkeys(("name", "prefix", "meaning")), "a prefix")
    for key in ("name", "prefix"):
        if key not in pairs:
            raise _Fault(_line(node), f"the {key} of the prefix is missing")
    meaning = _meaning(pairs)
    return Watched(_text(pairs["name"]), _prefix_text(pairs["prefix"]), meaning)


def _meaning(pairs: Mapping[str, yaml.Node]) -> Meaning:
    meaning = Meaning.DENIED
    if "meaning" in pairs:
        meaning = _choice(_by_value(Meaning))(pairs["meaning"])
    return meaning


def _prefix_text(node: yaml.Node) -> str:
    """A log prefix. It may be empty, for rules without one, and must then be in quotes: no value is a mistake."""
    if isinstance(node, yaml.ScalarNode) and node.style and not node.value:
        return ""
    return _text(node)


BACKEND_CHOICES: dict[str, Backend | None] = {"auto": None, **_by_value(Backend)}
LOG_CHOICES = _by_value(LogFormat)

_READERS: dict[str, Callable[[yaml.Node], Any]] = {
    "rules_dir": _path,
    "state_dir": _path,
    "runtime_dir": _path,
    "backend": _choice(BACKEND_CHOICES),
    "log": _choice(LOG_CHOICES),
    "apply": _choice(_by_value(ApplyMode)),
    "confirm_changes": _optional_duration(1.0, 86400.0),
    "settle": _duration(0.0, 60.0),
    "settle_max": _duration(0.0, 600.0),
    "drift_interval": _duration(0.1, 86400.0),
    "on_drift": _choice(_by_value(OnDrift)),
    "foreign": _choice(_by_value(Foreign)),
    "preserve": _patterns,
    "source": _choice(_by_value(SourceChoice)),
    "nflog_group": _whole(0, 65535),
    "prefixes": _prefixes,
    "denials_window": _duration(0.0, 86400.0),
    "denials_first": _whole(0, 1_000_000),
    "denials_per_second": _whole(0, 1_000_000),
    "denials_flows": _whole(1, 10_000),
    "scan_ports": _whole(0, 1000),
    "sweep_hosts": _whole(0, 1000),
    "keep_revisions": _whole(1, 10_000),
    "emergency_dir": _optional_path,
}

assert set(_READERS) == {setting.name for setting in fields(Settings)}
