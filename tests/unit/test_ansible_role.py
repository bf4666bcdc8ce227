"""The Ansible role, without Ansible: its files, its arguments, and the commands that it runs on the hosts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fwguardd.ctl.command_line import full_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = ROOT / "packaging" / "ansible"
ROLE = ANSIBLE / "roles" / "fwguardd"
COMPUTED = {"fwguardd_rules", "fwguardd_probe_address"}
"""Variables whose defaults are expressions, which the specification has in words."""


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _tasks(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All tasks, those of blocks too."""
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from _tasks(task.get(part, []))


TASKS = [task for path in sorted((ROLE / "tasks").glob("*.yml")) for task in _tasks(_read(path))]


@pytest.mark.parametrize("path", sorted(ANSIBLE.rglob("*.yml")), ids=lambda path: str(path.relative_to(ANSIBLE)))
def test_the_files_are_yaml(path: Path) -> None:
    """Each file is one document of YAML, and not empty."""
    assert _read(path)


def test_each_variable_is_specified_with_its_default() -> None:
    """The defaults and the specification have the same variables and values, and README.md names all of them."""
    specified = _read(ROLE / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = {name: value for name, value in _read(ROLE / "defaults" / "main.yml").items() if "fwguardd_" in name}
    assert defaults.keys() == specified.keys()
    for name in defaults.keys() - COMPUTED:
        assert defaults[name] == specified[name]["default"], name
    page = (ANSIBLE / "README.md").read_text(encoding="utf-8")
    assert [name for name in defaults if f"`{name}`" not in page] == []


def test_the_commands_of_the_role_exist() -> None:
    """Each command of fwguardctl in the tasks has a verb and options that this version knows."""
    commands = [task["ansible.builtin.command"]["argv"] for task in TASKS if "ansible.builtin.command" in task]
    own = [argv[1:] for argv in commands if argv[0] in ("fwguardctl", "{{ fwguardd_controller_command }}")]
    assert {argv[0] for argv in own} >= {"check", "test", "deploy", "confirm", "status"}
    parser = full_parser()
    for argv in own:
        parser.parse_args([re.sub(r"\{\{.*?\}\}", "7", word) for word in argv])


def test_the_role_needs_no_collection() -> None:
    """Every module is one of ansible-core."""
    for task in TASKS:
        modules = [key for key in task if key.startswith("ansible.builtin.") or key == "block"]
        assert len(modules) == 1, task["name"]
