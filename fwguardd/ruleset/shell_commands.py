"""The commands of a shell script that adds firewall rules: words with known variables filled in, and what is not known.

Nothing is run. A line whose meaning depends on running something is refused with the reason.

This module is pure.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import TYPE_CHECKING

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fwguardd.ruleset.shell_blocks import HereDocument, Loop, ShellLine

_PIECE = re.compile(
    r"""(?P<blank>[ \t]+)|'(?P<single>[^']*)'|"(?P<double>(?:\\.|[^"\\])*)"|\\(?P<escaped>.)"""
    r"""|(?P<operator>[;|&<>()]+)|(?P<plain>(?:\$\{[^}]*\}|\$\([^)]*\)|[^ \t'"\\;|&<>()])+)|(?P<other>.)"""
)
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_ASSIGNMENT = re.compile(r"(?:export +|readonly +)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_SILENCED = re.compile(r" *(?:[12&]?>+ *(?:/dev/null|&[12]))+ *$")
_OPENING = re.compile(r"(?:if|for|while|until|case|select|function)\b|[A-Za-z_][A-Za-z0-9_]* *\(\)|\{")
_CLOSING = re.compile(r"(?:fi|done|esac)\b|\}|.*[; ](?:fi|done|esac|\}) *;?$")


_IN_A_BLOCK = "it is in an if, a loop or a function, which only a shell can run"
_QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\$\{[^}]*\}|\\.""")
_PATTERN = re.compile(r"[*?\[{~]")


class NotKnownError(Exception):
    """What a line means is not known without running the script; the message says why."""


@dataclass(slots=True)
class Shell:
    """The variables that are known so far, and how many blocks are open."""

    variables: dict[str, str] = field(default_factory=dict)
    depth: int = 0

    def commands(self, line: ShellLine) -> Iterator[list[str]]:
        """The words of each command of a line; none for an assignment or a comment. Raises NotKnownError."""
        text = line.text.strip()
        if _is_blank_or_comment(text):
            return
        inside = self._is_in_a_block(text)
        if match := _ASSIGNMENT.fullmatch(text):
            self._assign(match[1], match[2], known=not inside)
            return
        if inside:
            raise NotKnownError(_IN_A_BLOCK)
        yield from self._split(_SILENCED.sub("", text))

    def words_of(self, loop: Loop) -> list[str]:
        """The words that a loop goes through. Raises NotKnownError where they are not known, or the loop is in a block
        that is not."""
        if self.depth:
            raise NotKnownError(_IN_A_BLOCK)
        if _PATTERN.search(_QUOTED.sub("", loop.words)):
            raise NotKnownError("a shell makes the words of the loop from a pattern")
        words: list[str] = []
        for command in self._split(loop.words):
            words += command
        return words

    def forget(self, line: ShellLine) -> None:
        """Forget the variable that a line sets, since it is not known whether the line is run."""
        match = _ASSIGNMENT.fullmatch(line.text)
        if match is not None:
            self.variables.pop(match[1], None)

    def lines_of(self, here: HereDocument) -> Iterator[tuple[int, str]]:
        """The lines of a here-document, with variables filled in. Raises NotKnownError."""
        for number, line in here.lines:
            text = line
            if here.expands:
                text = re.sub(r"\\([\\$`])", r"\1", self._filled(line))
            yield number, text

    def _is_in_a_block(self, text: str) -> bool:
        """Whether a line is in a block, begins one or ends one."""
        inside = self.depth > 0
        if _OPENING.match(text):
            self.depth += 1
            inside = True
        if inside and _CLOSING.match(text):
            self.depth -= 1
        return inside

    def _assign(self, name: str, value: str, *, known: bool) -> None:
        """Keep the value of a variable. Raises NotKnownError where it is not a plain text, and forgets the old one."""
        self.variables.pop(name, None)
        if not known:
            raise NotKnownError(f"the value of {name} depends on an if, a loop or a function")
        commands = list(self._split(value)) or [[""]]
        if not _is_single_word(commands):
            raise NotKnownError(f"the value of {name} is not a single word")
        self.variables[name] = commands[0][0]

    def _split(self, text: str) -> Iterator[list[str]]:
        """The words of each command; ";" separates commands. Raises NotKnownError."""
        words: list[str] = []
        is_open = False
        for match in _PIECE.finditer(text):
            kind = match.lastgroup
            if kind == "blank":
                is_open = False
            elif kind == "operator":
                _refuse_other_than_semicolon(match[0])
                if words:
                    yield words
                words, is_open = [], False
            elif match[0].startswith("#") and not is_open:
                break
            else:
                self._add(words, self._value(match), is_open=is_open)
                is_open = True
        if words:
            yield words

    def _value(self, match: re.Match[str]) -> str | list[str]:
        """The text of a piece; a list of words for variables without quotes. Raises NotKnownError."""
        if match["single"] is not None:
            return match["single"]
        if match["double"] is not None:
            return re.sub(r"\\([\\\"$`])", r"\1", self._filled(match["double"]))
        if match["escaped"] is not None:
            return match["escaped"]
        if match["other"] is not None:
            raise NotKnownError("a quote is not closed")
        return self._unquoted(match[0])

    def _unquoted(self, text: str) -> str | list[str]:
        """The text, or the words of it if there are variables in it, as a shell splits them."""
        filled = self._filled(text)
        if filled != text:
            return filled.split() or [""]
        return filled

    def _filled(self, text: str) -> str:
        """The text with the values of its variables. Raises NotKnownError."""
        if "`" in text or "$(" in text:
            raise NotKnownError("it runs a command to get a value")
        filled = _VARIABLE.sub(self._value_of, text)
        if re.search(r"\$[{0-9@*#?!]", filled):
            raise NotKnownError("it has a parameter whose value is not known")
        return filled

    def _value_of(self, match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in self.variables:
            raise NotKnownError(f"the value of ${name} is not known")
        return self.variables[name]

    @staticmethod
    def _add(words: list[str], value: str | list[str], *, is_open: bool) -> None:
        parts = value
        if isinstance(parts, str):
            parts = [parts]
        if is_open:
            words[-1] += parts[0]
        else:
            words.append(parts[0])
        words += parts[1:]


def _refuse_other_than_semicolon(operator: str) -> None:
    if operator == "<":
        raise NotKnownError("it reads a file: import that file too")
    if operator != ";":
        raise NotKnownError(f'"{operator}" needs a shell')


def _is_blank_or_comment(text: str) -> bool:
    return not text or text.startswith("#")


def _is_single_word(commands: Sequence[Sequence[str]]) -> bool:
    """Whether there is one command, of one word at most."""
    return len(commands) == 1 and len(commands[0]) <= 1
