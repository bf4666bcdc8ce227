"""Settings: every key has a default, and every error names file and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from fwguardd.denials.aggregation import AggregationLimits
from fwguardd.denials.model import Meaning, Watched
from fwguardd.ruleset.program_lookup import BY_NAME
from fwguardd.settings import DEFAULT_PRESERVE, Settings, SettingsError, load_settings, read_settings
from fwguardd.wording import duration

ROOT = Path(__file__).resolve().parents[2]
PATH = Path("/etc/fwguardd.yaml")

MISTAKES: dict[str, tuple[str | bytes, int, str]] = {
    "unknown key": ("settel: 1s", 1, "unknown setting 'settel'; did you mean 'settle'?"),
    "key set twice": ("settle: 1s\nsettle: 2s", 2, "setting 'settle' is set twice"),
    "wrong unit": ("\ndrift_interval: 10", 2, "'10' is not a duration; write it as 200ms, 30s, 5m or 1h"),
    "out of range": ("settle: 2h", 1, "2h is out of range"),
    "wrong choice": ("backend: ebpf", 1, "backend: 'ebpf' is not one of auto, nft, legacy"),
    "relative path": ("rules_dir: rules", 1, "'rules' is not an absolute path"),
    "no mapping": ("- a\n- b", 1, 'expected "key: value" lines in the file'),
    "no list": ("preserve: DOCKER", 1, "expected a list"),
    "unknown program": ("preserve:\n  - without dokcer", 2, "did you mean 'docker'?"),
    "no text": ("rules_dir:\n  - a", 2, "rules_dir: expected a string"),
    "not YAML": ("a: [1,", 1, "not YAML"),
    "prefix without a name": ('prefixes:\n  - {prefix: "x "}', 2, "prefixes: the name of the prefix is missing"),
    "prefix twice": ('prefixes: [{name: a, prefix: "x "}, {name: b, prefix: "x "}]', 1, "listed twice"),
    "no memory": ("denials_flows: 0", 1, "'0' is not a whole number from 1 to 10000"),
    "not UTF-8": (b"settle: 1s\n# \xff", 2, "not UTF-8"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_each_error_names_its_line(case: str) -> None:
    """File, line, setting and what would be right; never a traceback, never a setting silently not in force."""
    text, line, message = MISTAKES[case]
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(SettingsError) as caught:
        read_settings(PATH, data)
    assert str(caught.value).startswith(f"{PATH}:{line}: error: ")
    assert message in str(caught.value)


def test_an_empty_file_is_all_defaults() -> None:
    """An empty file means the defaults, and so does a missing file."""
    assert read_settings(PATH, b"") == Settings()
    assert read_settings(PATH, b"# only comments\n") == Settings()
    assert load_settings(Path("/nonexistent/fwguardd.yaml")) == Settings()


def test_limits_of_denials_are_settings() -> None:
    """Each limit of the tally has a key of its own, and 0s switches summaries off."""
    text = b"""denials_window: 0s
denials_first: 1
denials_per_second: 2
denials_flows: 3
scan_ports: 4
sweep_hosts: 5
"""
    assert read_settings(PATH, text).limits() == AggregationLimits(0.0, 1, 2, 3, 4, 5)


def test_a_named_file_must_exist() -> None:
    """A settings file that the command line names must exist."""
    with pytest.raises(SettingsError, match="does not exist"):
        load_settings(Path("/nonexistent/fwguardd.yaml"), must_exist=True)


def test_the_shipped_file_shows_the_defaults() -> None:
    """With every comment mark taken away, the shipped file says exactly the defaults, and names every setting."""
    shipped = (ROOT / "etc" / "fwguardd.yaml").read_text()
    said = "".join(f"{line[1:]}\n" for line in shipped.splitlines() if re.match(r"#([a-z_]+:|  - )", line))
    assert read_settings(PATH, said.encode()) == Settings()
    assert set(yaml.safe_load(said)) == set(Settings.__dataclass_fields__)
    assert read_settings(PATH, shipped.encode()) == Settings()


def test_prefixes_may_be_empty_and_have_a_meaning() -> None:
    """Rules without a prefix are watched by an empty one in quotes; a prefix without a value is a mistake."""
    text = b'prefixes: [{name: all, prefix: ""}, {name: ok, prefix: "ok ", meaning: allowed}]'
    assert read_settings(PATH, text).prefixes == (
        Watched("all", "", Meaning.DENIED),
        Watched("ok", "ok ", Meaning.ALLOWED),
    )
    with pytest.raises(SettingsError, match="expected a string"):
        read_settings(PATH, b"prefixes: [{name: all, prefix: }]")


def test_values_arrive() -> None:
    """A value in the file replaces the default."""
    settings = read_settings(PATH, b"settle: 1s\npreserve: []\non_drift: report\n")
    assert (settings.settle, settings.preserve, settings.on_drift.value) == (1.0, (), "report")
    assert Settings().preserve == DEFAULT_PRESERVE


def test_preserve_says_who_else_writes_rules() -> None:
    """The defaults and more, all but one, one alone, patterns alone, none."""

    def said(text: str) -> tuple[str, ...]:
        return read_settings(PATH, f"preserve: {text}".encode()).preserve

    assert said("[defaults, web-*]") == (*DEFAULT_PRESERVE, "web-*")
    assert set(DEFAULT_PRESERVE) - set(said("[defaults, without tailscale]")) == set(BY_NAME["tailscale"].patterns)
    assert said("[without tailscale, tailscale]") == ()
    assert said("[fail2ban]") == BY_NAME["fail2ban"].patterns
    assert said('["DOCKER*", "-j NFQUEUE *"]') == ("DOCKER*", "-j NFQUEUE *")
    assert said("[]") == ()


@pytest.mark.parametrize(("text", "seconds"), [("200ms", 0.2), ("30s", 30), ("5m", 300), ("1h", 3600), ("1.5s", 1.5)])
def test_durations(text: str, seconds: float) -> None:
    """A duration is a number and a unit."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "5d", "1e3s", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    """A number without a unit is refused: the unit is never guessed."""
    with pytest.raises(ValueError, match="is not a duration"):
        duration(text)
