"""YAML as a tree of frozen nodes, each with its line: for files whose mistakes are reported at the place.

Nothing is converted: ``22`` stays the text "22", and the reader of a file decides what a text means there. Tags and
merge keys have no meaning. The tree is built from the parser's events, since the composer of PyYAML with libyaml calls
itself for each level, and ends the process where a file is nested deeply.

This module is pure.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

import yaml

from fwguardd.values import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast, where PyYAML has it.

DEEPEST = 20
"""Levels of lists and mappings that may lie in each other."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text. ``quoted`` says whether it stood in quotes; "" without quotes is a key without a value."""

    text: str
    line: int
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class ListNode:
    """A list."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class MapNode:
    """Keys with their values, in the order of the file. A key may occur twice."""

    entries: tuple[tuple[Scalar, Node], ...]
    line: int


Node = Scalar | ListNode | MapNode


class NotYamlError(Exception):
    """The bytes are not one YAML document. ``line`` is 0 where it is not known."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def line_at(node: Node | None, path: Iterable[str | int]) -> int:
    """The line of the place that keys and numbers of entries lead to, as far as they do; 0 without a tree."""
    line = 0
    if node is not None:
        line = node.line
    for step in path:
        line, node = _step(node, step, line)
    return line


def _step(node: Node | None, step: str | int, line: int) -> tuple[int, Node | None]:
    """The line of a key, or an entry, of a node, and what stands there."""
    if isinstance(node, ListNode) and isinstance(step, int) and step < len(node.items):
        return node.items[step].line, node.items[step]
    if isinstance(node, MapNode):
        for key, value in node.entries:
            if key.text == step:
                return key.line, value
    return line, None


def read_tree(data: bytes) -> Node | None:
    """The tree of a document; None for an empty one. Raises NotYamlError."""
    try:
        return _built(yaml.parse(data.decode("utf-8"), Loader=_Loader))
    except UnicodeDecodeError as error:
        raise NotYamlError(data.count(b"\n", 0, error.start) + 1, "not UTF-8") from error
    except yaml.MarkedYAMLError as error:
        raise _marked(error) from error
    except yaml.YAMLError as error:
        raise NotYamlError(0, f"not YAML: {str(error).partition(chr(10))[0]}") from error


def _marked(error: yaml.MarkedYAMLError) -> NotYamlError:
    line = 0
    if error.problem_mark is not None:
        line = error.problem_mark.line + 1
    return NotYamlError(line, f"not YAML: {error.problem}")


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not been read."""

    line: int
    is_map: bool
    anchor: str | None
    nodes: list[Node] = field(default_factory=list)

    def closed(self) -> Node:
        """The node. Raises NotYamlError."""
        if not self.is_map:
            return ListNode(tuple(self.nodes), self.line)
        entries: list[tuple[Scalar, Node]] = []
        for key, value in zip(self.nodes[::2], self.nodes[1::2], strict=True):
            if not isinstance(key, Scalar):
                raise NotYamlError(key.line, "a key must be a word")
            entries.append((key, value))
        return MapNode(tuple(entries), self.line)


class _Tree:
    """The tree of one document, as far as it was read."""

    def __init__(self) -> None:
        self.roots: list[Node] = []
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}

    def begin(self, line: int, event: yaml.CollectionStartEvent) -> None:
        """Begin a list or mapping. Raises NotYamlError."""
        if len(self._open) == DEEPEST:
            raise NotYamlError(line, "nested too deeply")
        self._open.append(_Open(line, isinstance(event, yaml.MappingStartEvent), event.anchor))

    def end(self) -> None:
        """End the innermost list or mapping. Raises NotYamlError."""
        last = self._open.pop()
        self.add(last.closed(), last.anchor)

    def add(self, node: Node, anchor: str | None) -> None:
        """Put a node where the parser is."""
        if anchor is not None:
            self._anchors[anchor] = node
        nodes = self.roots
        if self._open:
            nodes = self._open[-1].nodes
        nodes.append(node)

    def add_alias(self, line: int, name: str) -> None:
        """Put the node that an alias names where the parser is. Raises NotYamlError."""
        if name not in self._anchors:
            raise NotYamlError(line, f"the alias *{name} stands for nothing that was read before")
        self.add(self._anchors[name], None)


def _line(event: yaml.Event) -> int:
    if event.start_mark is None:
        return 0
    return event.start_mark.line + 1


def _built(events: Iterable[yaml.Event]) -> Node | None:
    tree = _Tree()
    for event in events:
        _take(tree, event)
    if len(tree.roots) > 1:
        raise NotYamlError(tree.roots[1].line, "a second document begins; one file holds one document")
    return next(iter(tree.roots), None)


def _take(tree: _Tree, event: yaml.Event) -> None:
    """Put an event into the tree; those of documents and of the stream say nothing. Raises NotYamlError."""
    match event:
        case yaml.ScalarEvent():
            tree.add(Scalar(event.value, _line(event), bool(event.style)), event.anchor)
        case yaml.CollectionStartEvent():
            tree.begin(_line(event), event)
        case yaml.CollectionEndEvent():
            tree.end()
        case yaml.AliasEvent():
            tree.add_alias(_line(event), event.anchor or "")
