"""The command line of fwguardctl: its table of verbs, and the help of each verb."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fwguardd.ctl.command_line import full_parser, main
from fwguardd.ctl.verb_table import VERBS, list_of_verbs
from fwguardd.defaults import BACKEND_NAMES, RUNTIME_DIR, SETTINGS_PATH
from fwguardd.settings import BACKEND_CHOICES, DEFAULT_PATH, Settings

ROOT = Path(__file__).resolve().parents[2]
_HEAVY = (
    "yaml",
    "fwguardd.settings",
    "fwguardd.kernel",
    "fwguardd.ruleset.parser",
    "fwguardd.enforce",
    "fwguardd.denials",
)
"""Modules that take longer to import than a verb of the daemon takes to run."""


def _parsers() -> dict[str, argparse.ArgumentParser]:
    (verbs,) = (action for action in full_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(verbs.choices)


def _examples(parser: argparse.ArgumentParser) -> list[str]:
    """The commands in the examples of a verb, without what explains them."""
    lines = (parser.epilog or "").split("examples:")[1].splitlines()
    return [re.split(r"  +", line.strip())[0] for line in lines if re.match(" {1,2}[^ ]", line)]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["stop"], "fwguardctl: error: 'stop' is not a verb; fwguardctl --help lists the verbs"),
        (["stat"], "fwguardctl: error: 'stat' is not a verb (did you mean status?); fwguardctl --help lists the verbs"),
        (["block", "203.0.113.9", "for", "1h"],
         "fwguardctl block: error: unrecognized arguments: for 1h; did you mean --for?"),
        (["status", "--colour"], "fwguardctl status: error: unrecognized arguments: --colour"),
        (["forward", "443/tcp", "192.0.2.5", "443"],
         "fwguardctl forward: error: argument to: expected PORT to SERVER, found '192.0.2.5' in place of to"),
    ],
)  # fmt: skip
def test_wrong_usage_names_the_word_and_shows_the_usage_of_the_verb(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong word is named alone, with what was probably meant; the other verbs are not listed."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == message


def test_the_help_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of the help of a verb is wider than 79 columns on a terminal with 80."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = [line for parser in _parsers().values() for line in parser.format_help().splitlines()]
    assert [line for line in lines if len(line) > 79 and not line.startswith("  fwguardctl")] == []


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: str(verb.name))
def test_the_help_of_each_verb_has_a_sentence_and_two_examples(verb: object) -> None:
    """The help of a verb says what it does, and shows at least two commands, which the parser takes."""
    name = getattr(verb, "name", "")
    parser = _parsers()[name]
    assert (parser.description or "").rstrip().endswith("."), name
    examples = _examples(parser)
    assert len(examples) >= 2, name
    for example in examples:
        piped = [shlex.split(part) for part in example.partition(" > ")[0].split(" | ")]
        (command,) = (words for words in piped if words[0] == "fwguardctl")
        full_parser().parse_args(command[1:])


@pytest.mark.parametrize(
    ("argv", "code"), [(["--help"], 0), (["--version"], 0), (["status", "--socket", "/nonexistent"], 3)]
)
def test_the_usual_verbs_import_little(argv: list[str], code: int) -> None:
    """The help, the version and a verb of the daemon import neither YAML nor the modules that rehearse or parse."""
    script = (
        "import sys; from fwguardd.ctl.main import main\n"
        "try: code = main(sys.argv[1:])\n"
        "except SystemExit as ended: code = ended.code or 0\n"
        "print(code, *sys.modules, sep='\\n')"
    )
    ran = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True, check=True)
    printed = ran.stdout.splitlines()
    assert str(code) in printed
    assert [module for module in printed if module.startswith(_HEAVY)] == []


def test_the_list_of_verbs_fits_a_terminal() -> None:
    """The help of fwguardctl names every verb once, a line each, within 80 columns."""
    lines = list_of_verbs().splitlines()
    assert max(map(len, lines)) < 80
    assert sorted(line.split()[0] for line in lines if line.startswith("  ")) == sorted(verb.name for verb in VERBS)
    assert len({verb.name for verb in VERBS}) == len(VERBS)


def test_a_value_that_is_the_name_of_a_verb_is_a_value() -> None:
    """`--socket status show 41` is the verb show, although status is a verb, too."""
    options = full_parser().parse_args(["--socket", "status", "show", "41"])
    assert (options.verb, options.revision, str(options.socket)) == ("show", 41, "status")


def test_a_verb_refuses_options_that_do_nothing_for_it() -> None:
    """The daemon uses its own rules directory and backend: its verbs do not take the options that name others."""
    for verb in ("status", "reload", "open"):
        with pytest.raises(SystemExit) as ended:
            full_parser().parse_args([verb, "--rules-dir", "/tmp/rules"])
        assert ended.value.code == 2


def test_the_light_defaults_are_those_of_the_settings() -> None:
    """What fwguardctl knows without the settings is what the settings have."""
    assert tuple(BACKEND_CHOICES) == BACKEND_NAMES
    assert (DEFAULT_PATH, Settings().runtime_dir) == (SETTINGS_PATH, RUNTIME_DIR)


def _commands_of_the_cookbook() -> list[str]:
    pages = (ROOT / "packaging" / "man").glob("*.7")
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    lines = [line.removeprefix(".Dl ") for line in text.splitlines()]
    return [part.strip() for line in lines if line.startswith("fwguardctl ") for part in line.split("&&")]


@pytest.mark.parametrize("command", _commands_of_the_cookbook())
def test_every_command_of_the_cookbook_is_one(command: str) -> None:
    """Each command in fwguard-cookbook(7) and fwguard-monitoring(7) is taken by the parser of its verb."""
    full_parser().parse_args(shlex.split(command)[1:])
