"""Settings that are read without the parser of YAML say what the parser says."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fwguardd.setting_nodes import SettingsTextError, compose
from fwguardd.settings import read_settings

if TYPE_CHECKING:
    from fwguardd.setting_nodes import SettingNode

SHIPPED = Path(__file__).resolve().parents[2] / "etc" / "fwguardd.yaml"
PLAIN = (
    "# a comment\nsettle: 250ms\n\nforeign:   remove  # why\nrules_dir: /srv/rules-1.d\nsource: on\nsettle_max: 010\n"
)

PARTS = (
    *("settle: 2s", "log:", "log: json", "source: kmsg", "d: 1_0", "apply: null", "a: 1.5", "b: 0x1f", "c: 1e3"),
    *("e: x:y", "f: 'q'", "g: -", "h: - a", "i: /a/b", "j: a#b", "k: a #b", "l: [a]", "m: &a b", "n: *a", "o: !t b"),
    *(
        "p: 12:30",
        "q: a, b",
        "---",
        "...",
        "%YAML 1.1",
        "- a",
        "  more",
        "#",
        " # c",
        "\t",
        "\r",
        "\u00e9: a",
        "\ufeff",
    ),
    *(
        "\n",
        "\n",
        "\n",
        "\n",
        " ",
        "  ",
        " #",
        "# x",
        "\x7f",
        "\x85",
        "r: |",
        "<<: a",
        "? a",
        "z: a-",
        "y: a.",
        "x: 1-",
    ),
)


def _said(node: Any) -> object:
    """What a reader of settings sees of a node."""
    if node is None:
        return None
    place = node.id, node.start_mark.line
    if node.id == "scalar":
        return *place, node.value, node.style
    if node.id == "sequence":
        return *place, [_said(entry) for entry in node.value]
    return *place, [(_said(key), _said(value)) for key, value in node.value]


def _by_parser(text: str) -> object:
    try:
        return _said(yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError:
        return SettingsTextError


def _ours(text: str) -> object:
    try:
        node: SettingNode | None = compose(text.encode())
    except SettingsTextError:
        return SettingsTextError
    return _said(node)


@pytest.mark.parametrize("text", [PLAIN, SHIPPED.read_text(), "", "# only a comment", "settle: 2s"])
def test_plain_settings(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Comments and lines such as ``settle: 2s`` are read without the parser, also the file that is shipped."""
    wanted = _by_parser(text)
    monkeypatch.setitem(sys.modules, "yaml", None)  # An import of it fails.
    assert _ours(text) == wanted


def test_any_text(seed: int) -> None:
    """Whatever the lines are, the result is that of the parser: the same settings on the same lines, or an error."""
    chosen = random.Random(seed)
    for _ in range(300):
        text = "".join(chosen.choices(PARTS, k=chosen.randint(1, 6)))
        assert _ours(text) == _by_parser(text), repr(text)


def test_a_fault_is_named_with_its_line() -> None:
    """The line of a wrong value is that of the file, as with the parser."""
    with pytest.raises(Exception, match=r"fwguardd\.yaml:3: error: .*settle"):
        read_settings(Path("fwguardd.yaml"), b"# a\n\nsettle: soon\n")
