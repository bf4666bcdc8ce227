"""What the two programs print where Python modules that they need are not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fwguardd.dependencies import DEBIAN_PACKAGES, report_missing

ROOT = Path(__file__).resolve().parents[2]


def _run_without_site_packages(*argv: str) -> subprocess.CompletedProcess[str]:
    """Python with the standard library and this checkout only, as on a Debian host where nothing was installed yet."""
    command = [sys.executable, "-S", "-s", "-m", *argv]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("argv", "program", "code"),
    [
        (("fwguardd.ctl.main", "check", "etc/fwguard.d"), "fwguardctl", 5),
        (("fwguardd", "--version"), "fwguardd", 1),
    ],
)
def test_missing_modules_are_reported_with_their_packages(argv: tuple[str, ...], program: str, code: int) -> None:
    """One line names all missing modules and the command that installs them; there is no traceback."""
    ended = _run_without_site_packages(*argv)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr == (
        f"{program}: Python modules are not installed: sdnotify, structlog, watchdog, yaml; install them with: "
        "apt install python3-sdnotify python3-structlog python3-watchdog python3-yaml\n"
    )


def test_the_server_of_metrics_names_its_optional_module_too() -> None:
    """The library for metrics is named with the modules that every program needs."""
    ended = _run_without_site_packages("fwguardd.metrics")
    assert (ended.returncode, ended.stdout) == (78, "")
    assert ended.stderr.startswith("fwguardd-metrics: Python modules are not installed: prometheus_client, sdnotify, ")
    assert ended.stderr.endswith("python3-yaml\n") and "apt install python3-prometheus-client " in ended.stderr


def test_another_missing_module_is_a_defect() -> None:
    """A module that is none of the dependencies is missing because of a defect, which is not hidden."""
    with pytest.raises(ModuleNotFoundError):
        report_missing("fwguardd", ModuleNotFoundError("no module", name="fwguardd.nothing"))


def test_every_dependency_has_a_package() -> None:
    """Each requirement in pyproject.toml is one of the modules that are looked for."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith("dependencies = "))
    for name in DEBIAN_PACKAGES:
        assert name in line
    assert line.count(">=") == len(DEBIAN_PACKAGES)


def test_the_parser_of_settings_is_missing(tmp_path: Path) -> None:
    """The daemon imports the parser of YAML only for a settings file that needs it, and names its package then too."""
    config = tmp_path / "fwguardd.yaml"
    config.write_text("preserve:\n  - DOCKER\n")
    (tmp_path / "yaml.py").write_text("raise ModuleNotFoundError('no yaml', name='yaml')\n")
    command = [sys.executable, "-m", "fwguardd", "--config", str(config)]
    variables = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=variables)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("fwguardd: Python modules are not installed: ")
