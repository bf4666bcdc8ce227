"""The manual tells all there is, and nothing that is not: the pages are held to the parsers, the settings, the events.

A failing test prints the line that is missing from a page.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import yaml

from fwguardd import events, options
from fwguardd.ctl import command_line as ctl
from fwguardd.ruleset.program_lookup import BY_NAME
from fwguardd.settings import Settings, read_settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = {path.name: path for path in sorted((ROOT / "packaging" / "man").iterdir())}
RULE_PACKAGES = ("ruleset", "enforce", "packets", "proof")


def _text(name: str) -> str:
    return PAGES[name].read_text(encoding="utf-8")


def _section(name: str, title: str) -> str:
    match = re.search(rf"^\.Sh {title}\n(.*?)(?=^\.Sh |\Z)", _text(name), re.MULTILINE | re.DOTALL)
    assert match, f"{name} has no section {title}"
    return match[1]


def _items(text: str, macro: str) -> dict[str, str]:
    """The items of a list that start with a macro: the first word behind it, and all that is said of it."""
    parts = re.split(rf"^\.It {macro} (\S+)", text, flags=re.MULTILINE)[1:]
    assert len(parts[::2]) == len(set(parts[::2])), f"an item stands twice: {sorted(parts[::2])}"
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _long_options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings if option.startswith("--")}


def _verbs() -> dict[str, argparse.ArgumentParser]:
    (verbs,) = (action for action in ctl.full_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(verbs.choices)


def _flags(text: str) -> set[str]:
    """Every long option that has an item of its own: `.It Fl h , Fl -help` names --help."""
    lines = [line for line in text.splitlines() if line.startswith(".It Fl ")]
    return {f"--{name}" for line in lines for name in re.findall(r"Fl -([a-z-]+)", line)}


def test_there_are_six_pages() -> None:
    """Two programs, the settings, the rule files, the tasks, and what to watch."""
    programs = {"fwguardd.8", "fwguardctl.8", "fwguardd.yaml.5", "fwguard.d.5"}
    assert set(PAGES) == programs | {"fwguard-cookbook.7", "fwguard-monitoring.7"}


def test_the_page_for_monitoring_has_each_event_that_asks_for_something() -> None:
    """Each event of priority warning or above stands there once, and no event that does not exist."""
    items = re.findall(r"^\.It Sy (.*)$", _section("fwguard-monitoring.7", "WHAT EACH EVENT ASKS OF YOU"), re.MULTILINE)
    named = [name for item in items for name in item.split(" , ")]
    expected = {kind.name for kind in events.ALL_EVENTS.values() if kind.priority <= events.WARNING}
    # Items of several events are written as "a , b" in mdoc.
    assert sorted(name for group in named for name in group.split(", ")) == sorted(expected)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed(name: str) -> None:
    """No fault is found by mandoc, but that the pages are not installed; groff has nothing to say."""
    lint = subprocess.run(["mandoc", "-Tlint", "-Wstyle", PAGES[name]], capture_output=True, text=True, check=False)
    reported = (lint.stdout + lint.stderr).splitlines()
    assert [line for line in reported if "referenced manual not found" not in line and "mandoc.db" not in line] == []
    groff: list[str | Path] = ["man", "--warnings", "--encoding=UTF-8", "--local-file", PAGES[name]]
    printed = subprocess.run(groff, capture_output=True, text=True, check=True)
    assert printed.stderr == ""
    assert len(printed.stdout) > 1000


@pytest.mark.parametrize("name", PAGES)
def test_a_page_speaks_in_lines_of_its_own(name: str) -> None:
    """Plain sentences: nothing in a page needs an escape that a person cannot read, but the empty one."""
    assert set(re.findall(r"\\.", _text(name))) <= {r"\&"}


def test_the_daemon_page_tells_every_option() -> None:
    """Each option of fwguardd, in the synopsis and with an explanation, and no other."""
    wanted = _long_options(options._parser())
    assert _flags(_section("fwguardd.8", "OPTIONS")) == wanted
    synopsis = _section("fwguardd.8", "SYNOPSIS")
    assert {f"--{name}" for name in re.findall(r"Fl -([a-z-]+)", synopsis)} == wanted


def test_the_daemon_page_tells_every_event() -> None:
    """Each event by its name, with what it means, as `fwguardd.events` has it."""
    reported = {
        name: " ".join(text.split(".El")[0].split())
        for name, text in _items(_section("fwguardd.8", "EVENTS"), "Sy").items()
    }
    wanted = {kind.name: kind.meaning for kind in events.ALL_EVENTS.values()}
    missing = "\n".join(f".It Sy {name}\n{text}" for name, text in wanted.items() if reported.get(name) != text)
    assert not missing, f"fwguardd.8 does not say (a sentence a line):\n{missing}"
    assert set(reported) == set(wanted)


def test_the_daemon_page_documents_every_field() -> None:
    """Each field of an event with its meanings, types and units, as the schema has them, and no other field."""
    documented = {
        name: " ".join(text.split(".El")[0].split())
        for name, text in _items(_section("fwguardd.8", "EVENT FIELDS"), "Sy").items()
    }
    wanted: dict[str, dict[str, None]] = {}
    for kind in events.ALL_EVENTS.values():
        for field in kind.fields:
            value = ", ".join(filter(None, (field.type.value, field.unit)))
            wanted.setdefault(field.name, {})[f"{field.meaning} .Pq {value}"] = None
    expected = {name: " ".join(meanings) for name, meanings in wanted.items()}
    missing = "\n".join(f".It Sy {name}\n{text}" for name, text in expected.items() if documented.get(name) != text)
    assert not missing, f"fwguardd.8 does not say (a sentence a line):\n{missing}"
    assert list(documented) == sorted(expected)


def test_the_command_page_tells_every_verb() -> None:
    """Each verb, with the arguments and options that it alone has, and no other."""
    items = _items(_section("fwguardctl.8", "VERBS"), "Cm")
    verbs = _verbs()
    assert list(items) == [name for name in items if name in verbs], "a verb that does not exist"
    missing = "\n".join(f".It Cm {name}" for name in verbs if name not in items)
    assert not missing, f"fwguardctl.8 does not tell of:\n{missing}"
    common = _flags(_section("fwguardctl.8", "OPTIONS"))
    for name, parser in verbs.items():
        own = _flags(items[name])
        assert own | common >= _long_options(parser), f"fwguardctl.8 lacks options of {name}"
        assert own <= _long_options(parser), f"fwguardctl.8 tells of options that {name} does not have"
        heading = items[name].split("\n")[0]
        for action in parser._actions:
            if not action.option_strings:
                assert str(action.metavar) in heading, f"fwguardctl.8 lacks {action.metavar} of {name}"


def test_the_command_page_tells_every_common_option() -> None:
    """The options that several verbs have, and those that go before the verb."""
    counts = Counter(option for parser in _verbs().values() for option in _long_options(parser))
    shared = {option for option, count in counts.items() if count > 1}
    assert _flags(_section("fwguardctl.8", "OPTIONS")) == shared | _long_options(ctl.full_parser())


def test_the_settings_page_tells_every_setting_with_its_default() -> None:
    """Each setting has an item, which shows its default as it would be written."""
    section = _section("fwguardd.yaml.5", "SETTINGS")
    shown = []
    for name, text in _items(section, "Cm").items():
        literal = re.findall(r"^\.Dl (.*)\n", text, re.MULTILINE)
        literal += re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed", text, re.MULTILINE | re.DOTALL)
        assert len(literal) == 1, f"{name} must show its default, and nothing else, in literal lines"
        assert literal[0].startswith(f"{name}:")
        shown.append(literal[0])
    said = "\n".join(shown)
    assert set(yaml.safe_load(said)) == set(Settings.__dataclass_fields__)
    assert read_settings(Path("fwguardd.yaml.5"), said.encode()) == Settings()


def test_the_settings_page_names_everybody_who_is_known() -> None:
    """Each program whose rules are preserved by default, by the name that `preserve` takes."""
    text = _items(_section("fwguardd.yaml.5", "SETTINGS"), "Cm")["preserve"]
    known = re.search(r"fwguardd knows:\n(.*?)\.\n", text, re.DOTALL)
    assert known
    assert known[1].replace("\n", " ").split(", ") == list(BY_NAME)


def test_the_example_settings_can_be_used() -> None:
    """Whoever copies the example gets no error."""
    example = re.search(r"^\.Bd [^\n]*\n(.*?)^\.Ed", _section("fwguardd.yaml.5", "EXAMPLES"), re.MULTILINE | re.DOTALL)
    assert example
    assert read_settings(Path("fwguardd.yaml.5"), example[1].encode()) != Settings()


def test_the_rules_page_tells_no_warning_that_does_not_exist() -> None:
    """Each code in the list of warnings is one that a warning can have; test_lint.py holds the reverse."""
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for package in RULE_PACKAGES
        for path in (ROOT / "fwguardd" / package).glob("*.py")
    )
    known = set(re.findall(r'"([a-z0-9]+(?:-[a-z0-9]+)+)"', source))
    listed = {code for line in re.findall(r"^\.It Sy (.*)$", _section("fwguard.d.5", "WARNINGS"), re.MULTILINE)
              for code in line.split(" , ")}  # fmt: skip
    assert listed <= known, "a warning that does not exist"


@pytest.mark.parametrize(("name", "codes"), [("fwguardctl.8", "012345"), ("fwguardd.8", None)])
def test_exit_codes_are_told(name: str, codes: str | None) -> None:
    """Every exit code of the two programs."""
    wanted = {*codes} if codes else {"0", "1", "2", "77", "78"}
    assert set(re.findall(r"^\.It (\d+)$", _section(name, "EXIT STATUS"), re.MULTILINE)) == wanted


@pytest.mark.parametrize("firewall", ["IPTABLES-PERSISTENT", "UFW", "FIREWALLD"])
def test_the_daemon_runs_before_its_verbs_on_a_host_that_had_another_firewall(firewall: str) -> None:
    """Each chapter about moving from another firewall starts fwguardd, before it uses a verb that needs the daemon."""
    commands = re.findall(
        r"^(?:fwguardctl|systemctl) .*$", _section("fwguard-cookbook.7", f"MOVING FROM {firewall}"), re.MULTILINE
    )
    needing = [place for place, command in enumerate(commands) if re.match("fwguardctl (allow|deploy|adopt)", command)]
    assert commands.index("systemctl enable --now fwguardd") < min(needing)
