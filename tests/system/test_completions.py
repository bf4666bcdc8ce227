"""Completions, asked as a person at a prompt asks: what bash and fish offer is what the parsers take."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from pathlib import Path

import pytest

from fwguardd import options
from fwguardd.ctl import command_line as ctl
from tests.golden.completions import completion_files
from tests.waiting import LONGEST

FOLDER = Path(__file__).resolve().parents[2] / "packaging" / "completions"
BASH_LIBRARY = "/usr/share/bash-completion/bash_completion"


def _subparsers() -> dict[str, argparse.ArgumentParser]:
    (verbs,) = (action for action in ctl.full_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(verbs.choices)


def _long_options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings if option.startswith("--")}


VERBS = _subparsers()
LINES: dict[str, set[str]] = {
    "fwguardctl ": set(VERBS),
    "fwguardctl --": _long_options(ctl.full_parser()),
    "fwguardctl re": {verb for verb in VERBS if verb.startswith("re")},
    **{f"fwguardctl {verb} --": _long_options(parser) for verb, parser in VERBS.items()},
    "fwguardctl --socket /x sho": {"show"},
    "fwguardctl render --family ": {"4", "6"},
    "fwguardctl show ": {"41", "42"},
    "fwguardctl rollback 4": {"41", "42"},
    "fwguardctl check --backend ": {"auto", "nft", "legacy"},
    "fwguardctl check --backend=n": {"nft"},
    "fwguardd --": _long_options(options._parser()),
    "fwguardd --log ": {"auto", "journal", "json", "console"},
    "fwguardd --config /x --backend l": {"legacy"},
}
"""What stands at the prompt, and what must be offered then."""


@pytest.fixture(autouse=True)
def _answering_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that answers as fwguardctl does where a daemon runs, for the completion of revisions."""
    answer = json.dumps({"revisions": [{"revision": 42, "cause": "start"}, {"revision": 41, "cause": "start"}]})
    command = tmp_path / "bin" / "fwguardctl"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\n[ \"$*\" = 'history --json' ] && echo '{answer}'\n", encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))


def _run(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LONGEST)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def _ask_bash(lines: list[str]) -> dict[str, set[str]]:
    """Fill in the variables that bash gives a completion function (bash(1), Programmable Completion), and call it.

    One shell answers all lines.
    """
    script = [f"source {BASH_LIBRARY}", f"source {FOLDER}/fwguardctl", f"source {FOLDER}/fwguardd"]
    for line in lines:
        words = re.findall(r"[^ =]+|=", line) + ([""] if line.endswith(" ") else [])
        quoted = " ".join(f"'{word}'" for word in words)
        script.append(
            f"COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1}\n"
            "COMPREPLY=()\n"
            f"_{words[0]} {words[0]} '{words[-1]}' '{words[-2]}'\n"
            'printf "%s " "${COMPREPLY[@]}"; echo'
        )
    answers = _run("bash", "--norc", "-c", "\n".join(script)).splitlines()
    return {line: set(answer.split()) for line, answer in zip(lines, answers, strict=True)}


def _ask_fish(lines: list[str]) -> dict[str, set[str]]:
    """`complete -C` is fish's own way to ask what it would offer."""
    script = [f"source {FOLDER}/fwguardctl.fish", f"source {FOLDER}/fwguardd.fish"]
    script += [f"complete -C '{line}'; echo ." for line in lines]
    answers = _run("fish", "--no-config", "-c", "\n".join(script)).split(".\n")[:-1]
    found = [{offer.split("\t")[0] for offer in answer.splitlines()} for answer in answers]
    return dict(zip(lines, found, strict=True))


def test_the_files_are_up_to_date() -> None:
    """The completions of fwguardctl are what ``python -m tests.golden.update`` writes."""
    for path, text in completion_files().items():
        assert path.read_text(encoding="utf-8") == text, path.name


def test_bash_offers_what_the_parsers_take() -> None:
    """Every verb, every option of every verb, every choice; nothing else."""
    assert _ask_bash(list(LINES)) == LINES


def test_fish_offers_what_the_parsers_take() -> None:
    """As bash does; fish puts what stands before = into its offers."""
    wanted = LINES | {"fwguardctl check --backend=n": {"--backend=nft"}}
    assert _ask_fish(list(wanted)) == wanted


def test_bash_offers_times_and_files(tmp_path: Path) -> None:
    """Where anything may stand, some likely times are offered, and the files that there are."""
    (tmp_path / "draft.rules").touch()
    (tmp_path / "drafts").mkdir()
    offers = _ask_bash(
        [
            "fwguardctl pause ",
            "fwguardctl reload --confirm=",
            f"fwguardctl check {tmp_path}/dr",
            f"fwguardctl diff --rules-dir {tmp_path}/dr",
        ]
    )
    assert [len(answer) for answer in offers.values()] == [5, 5, 2, 1]


@pytest.mark.parametrize("program", ["fwguardctl", "fwguardd"])
def test_zsh_knows_what_the_parsers_take(program: str) -> None:
    """The file is zsh, and names every verb and option; what it offers where, only a person at a prompt can see."""
    _run("zsh", "-n", FOLDER / f"_{program}")
    text = (FOLDER / f"_{program}").read_text(encoding="utf-8")
    parsers = [ctl.full_parser(), *VERBS.values()] if program == "fwguardctl" else [options._parser()]
    assert set(re.findall(r"--[a-z-]+(?=[\[=}])", text)) == set().union(*(_long_options(parser) for parser in parsers))
    if program == "fwguardctl":
        assert set(re.findall(r"^ {8}'([a-z]+):", text, re.MULTILINE)) == set(VERBS)
