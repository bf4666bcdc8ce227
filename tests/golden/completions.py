"""The completions of fwguardctl, written from its parsers: ``python -m tests.golden.update`` writes the files again.

What completes a value follows from the word that stands for it in the help: FILE, DIR, REV, or from its choices.
"""

from __future__ import annotations

import argparse
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from fwguardd.ctl.command_line import full_parser
from fwguardd.ctl.verb_table import VERBS

FOLDER = Path(__file__).resolve().parents[2] / "packaging" / "completions"

FILES, DIRECTORIES, REVISIONS, SERVICES = "files", "directories", "revisions", "services"
_BY_METAVAR = {
    **dict.fromkeys(("F", "S", "FILE", "PATH", "HOST.YAML"), FILES),
    **dict.fromkeys(("D", "DIR"), DIRECTORIES),
    "REV": REVISIONS,
    **dict.fromkeys(("SERVICE", "ENTRY"), SERVICES),
    "T": "yesterday today -1h -15m",
    "30d": "12h 7d 30d",
    **dict.fromkeys(("60s", "15m", "TIME", "1h", "2h"), "30s 60s 5m 15m 1h"),
}
"""What completes a value: a kind of name, or words; nothing where the metavar is not here."""


@dataclass(frozen=True, slots=True)
class _Argument:
    """An option, or an operand, which has no flags. ``value`` is None for an option without one."""

    flags: tuple[str, ...]
    text: str
    value: str | None
    metavar: str
    optional: bool
    repeated: bool


def completion_files() -> dict[Path, str]:
    """The text of each completion file of fwguardctl."""
    parser = full_parser()
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {verb.name: verb.summary for verb in VERBS}
    arguments = {name: _arguments(verb) for name, verb in verbs.choices.items()}
    first = [argument for argument in _arguments(parser) if argument.flags]
    return {
        FOLDER / "fwguardctl": _bash(first, arguments),
        FOLDER / "fwguardctl.fish": _fish(first, summaries, arguments),
        FOLDER / "_fwguardctl": _zsh(first, summaries, arguments),
    }


def _arguments(parser: argparse.ArgumentParser) -> list[_Argument]:
    return [_argument(action) for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]


def _argument(action: argparse.Action) -> _Argument:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest
    value: str | None = None
    if action.nargs != 0:
        value = _BY_METAVAR.get(metavar, "")
        if action.choices:
            value = " ".join(str(choice) for choice in action.choices)
    repeated = isinstance(action, argparse._AppendAction) or action.nargs in ("*", "+")
    return _Argument(
        tuple(action.option_strings), _short(action.help or ""), value, metavar, action.nargs == "?", repeated
    )


def _short(text: str) -> str:
    """The first words of a help text: up to a mark that begins an explanation."""
    return re.split(r"[:;,(] ?", text.replace("this help message and exit", "a summary"))[0].strip()


def _long(arguments: list[_Argument]) -> str:
    return " ".join(argument.flags[-1] for argument in arguments if argument.flags)


_BASH = """\
# Completion of fwguardctl(8) for bash. -*- shell-script -*-
# Written by python -m tests.golden.update from the parsers of fwguardctl.

_fwguardctl_revisions() {{
    fwguardctl history --json 2>/dev/null | grep -o '"revision": [0-9]*' | grep -o '[0-9]*$'
}}

_fwguardctl_services() {{
    fwguardctl services 2>/dev/null | cut -d ' ' -f 1
}}

_fwguardctl() {{
    local cur prev words cword split
    _init_completion -s || return

    local verbs='{verbs}'
    local verb='' word offers=''
    for word in "${{words[@]:1:cword-1}}"; do
        [[ " $verbs " != *" $word "* ]] || {{ verb=$word; break; }}
    done

    case $verb,$prev in
{values}
    esac
    if [[ -z $offers ]] && ! $split; then
        case $verb,$cur in
            ,-*) offers='{first}' ;;
            ,*) offers=$verbs ;;
{options}
{operands}
        esac
    fi
    COMPREPLY=($(compgen -W "$offers" -- "$cur"))
}} &&
    complete -F _fwguardctl fwguardctl
"""


def _bash(first: list[_Argument], verbs: dict[str, list[_Argument]]) -> str:
    values = [*_bash_values("", first)]
    for verb, arguments in verbs.items():
        values += _bash_values(verb, arguments)
    options = [f"            {verb},-*) offers='{_long(arguments)}' ;;" for verb, arguments in verbs.items()]
    operands = [
        f"            {verb},*) {_bash_offer(argument)} ;;"
        for verb, arguments in verbs.items()
        for argument in arguments[::-1]
        if not argument.flags and argument.value
    ]
    return _BASH.format(
        verbs=" ".join(verbs),
        values="\n".join(values),
        first=_long(first),
        options="\n".join(options),
        operands="\n".join(operands),
    )


def _bash_values(verb: str, arguments: list[_Argument]) -> list[str]:
    """What to offer behind the options of a verb that have a value."""
    lines: list[str] = []
    for argument in arguments:
        if argument.flags and argument.value is not None:
            patterns = " | ".join(f"{verb},{flag}" for flag in argument.flags)
            lines.append(f"        {patterns}) {_bash_offer(argument)} ;;")
    return lines


def _bash_offer(argument: _Argument) -> str:
    if argument.value == FILES:
        return "_filedir; return"
    if argument.value == DIRECTORIES:
        return "_filedir -d; return"
    if argument.value in (REVISIONS, SERVICES):
        return f"offers=$(_fwguardctl_{argument.value})"
    if argument.value:
        return f"offers='{argument.value}'"
    if argument.optional:
        return ":"
    return "return"


_FISH = """\
# Completion of fwguardctl(8) for fish.
# Written by python -m tests.golden.update from the parsers of fwguardctl.

function __fwguardctl_revisions
    fwguardctl history --json 2>/dev/null | string match -ra '"revision": \\d+' | string replace -r '\\D+' ''
end

function __fwguardctl_services
    fwguardctl services 2>/dev/null | string replace -r ' .*' ''
end

function __fwguardctl_verb
    for word in (commandline -opc)[2..]
        if contains -- $word {verbs}
            echo $word
            return
        end
    end
    return 1
end

function __fwguardctl_is
    test (__fwguardctl_verb; or echo) = $argv[1]
end

complete -c fwguardctl -f
"""


def _fish(first: list[_Argument], summaries: dict[str, str], verbs: dict[str, list[_Argument]]) -> str:
    lines = [_FISH.format(verbs=" ".join(verbs))]
    no_verb = "'not __fwguardctl_verb >/dev/null'"
    for verb, summary in summaries.items():
        lines.append(f"complete -c fwguardctl -n {no_verb} -a {verb} -d {shlex.quote(_short(summary))}\n")
    lines += [_fish_line(no_verb, argument) for argument in first]
    for verb, arguments in verbs.items():
        lines += [_fish_line(f"'__fwguardctl_is {verb}'", argument) for argument in arguments]
    return "".join(lines)


def _fish_line(condition: str, argument: _Argument) -> str:
    words = ["complete -c fwguardctl -n", condition]
    for flag in argument.flags:
        words += ["-l" if flag.startswith("--") else "-s", flag.lstrip("-")]
    if argument.value is not None:
        words += _fish_value(argument)
    elif not argument.flags:
        return ""
    if argument.flags:
        words += ["-d", shlex.quote(argument.text)]
    return " ".join(words) + "\n"


def _fish_value(argument: _Argument) -> list[str]:
    if argument.flags and argument.optional:
        return []  # fish has no value that may be missing.
    needs = ["-x"] if argument.flags else []
    if argument.value == FILES:
        return ["-r", "-F"] if argument.flags else ["-F"]
    if argument.value == DIRECTORIES:
        return [*needs, "-a", "'(__fish_complete_directories)'"]
    if argument.value in (REVISIONS, SERVICES):
        return [*needs, "-a", f"'(__fwguardctl_{argument.value})'"]
    if argument.value:
        return [*needs, "-a", f"'{argument.value}'"]
    return needs


_ZSH = """\
#compdef fwguardctl
# Completion of fwguardctl(8) for zsh.
# Written by python -m tests.golden.update from the parsers of fwguardctl.

_fwguardctl_revisions() {{
    local -a revisions
    revisions=(${{(f)"$(fwguardctl history --json 2>/dev/null | grep -o '"revision": [0-9]*' | grep -o '[0-9]*$')"}})
    compadd -V revisions -a revisions
}}

_fwguardctl_services() {{
    local -a services
    services=(${{(f)"$(fwguardctl services 2>/dev/null | cut -d ' ' -f 1)"}})
    compadd -a services
}}

_fwguardctl() {{
    local curcontext=$curcontext state line
    local -a verbs
    verbs=(
{verbs}
    )
    _arguments -C \\
{first}
        '1:verb:->verb' \\
        '*::argument:->argument'
    case $state in
        verb) _describe -t verbs verb verbs ;;
        argument)
            case $words[1] in
{cases}
            esac
            ;;
    esac
}}

_fwguardctl "$@"
"""


def _zsh(first: list[_Argument], summaries: dict[str, str], verbs: dict[str, list[_Argument]]) -> str:
    described = [f"        {_zsh_quoted(f'{verb}:{_zsh_text(text)}')}" for verb, text in summaries.items()]
    cases: list[str] = []
    for verb, arguments in verbs.items():
        specs = " \\\n                        ".join(_zsh_spec(argument) for argument in arguments)
        cases.append(f"                {verb})\n                    _arguments \\\n                        {specs} ;;")
    return _ZSH.format(
        verbs="\n".join(described),
        first="\n".join(f"        {_zsh_spec(argument)} \\" for argument in first),
        cases="\n".join(cases),
    )


def _zsh_spec(argument: _Argument) -> str:
    if not argument.flags:
        place = "*" if argument.repeated else ("1" if not argument.optional else ":")
        message = argument.metavar.lower()
        head = f"{place}:{message}" if place != ":" else f"::{message}"
        return _zsh_quoted(f"{head}:{_zsh_action(argument)}")
    text = f"[{_zsh_text(argument.text)}]"
    value = ""
    if argument.value is not None:
        value = f":{argument.metavar.lower().replace(':', ' ')}:{_zsh_action(argument)}"
        if argument.optional:
            value = f":{value}"
    star = "*" if argument.repeated else ""
    flags = [flag + _zsh_mark(flag, argument) for flag in argument.flags]
    specs = [f"{_zsh_quoted(f'{star}{flag}{text}{value}')}" for flag in flags]
    return " ".join(specs)


def _zsh_mark(flag: str, argument: _Argument) -> str:
    """How the value follows: behind =, or, where it may be missing, only behind =."""
    if argument.value is None or not flag.startswith("--"):
        return ""
    return "=-" if argument.optional else "="


def _zsh_action(argument: _Argument) -> str:
    if argument.value == FILES:
        return "_files"
    if argument.value == DIRECTORIES:
        return "_directories"
    if argument.value in (REVISIONS, SERVICES):
        return f"_fwguardctl_{argument.value}"
    return f"({argument.value})" if argument.value else ""


def _zsh_text(text: str) -> str:
    return re.sub(r"([:\[\]])", r"\\\1", text)


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
