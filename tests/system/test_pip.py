"""fwguardd from a wheel, in an environment of its own, as pip and pipx install it; offline."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pip
import pytest

from fwguardd import __version__
from tests.system.bed import Bed
from tests.system.roots import pristine_root

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
BIN = "/opt/fwguardd/bin"
WITH_IT = f"env PATH={BIN}:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A booted machine with the wheel of this checkout in a virtual environment, and the checkout's other files."""
    shared = tmp_path_factory.mktemp("host")
    with Bed(pristine_root(), shared) as bed:
        wheel = _wheel(tmp_path_factory.mktemp("wheel"))
        shutil.copyfile(wheel, shared / wheel.name)
        for name in ("etc", "packaging"):
            shutil.copytree(ROOT / name, shared / name)
        # The bed has no pip; this environment's serves the one in it.
        shutil.copytree(Path(pip.__file__).parent, shared / "pip" / "pip")
        bed.boot()
        bed.run("python3 -m venv --system-site-packages --without-pip /opt/fwguardd")
        bed.run(f"env PYTHONPATH=/shared/pip {BIN}/python -m pip install --no-index --no-deps /shared/{wheel.name}")
        yield bed


def _wheel(folder: Path) -> Path:
    """Built as pip builds it, of a copy, since setuptools leaves its traces in the tree."""
    for name in ("etc", "fwguardd", "packaging"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copyfile(ROOT / name, folder / name)
    build = ["/usr/bin/python3", "-I", "-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check"]
    subprocess.run([*build, "--outdir", folder / "dist", folder], check=True, capture_output=True, text=True)
    (wheel,) = (folder / "dist").glob(f"fwguardd-{__version__}-*.whl")
    return wheel


def test_the_commands_work(host: Bed) -> None:
    """Both programs are there and know their version; the shipped rules pass a check."""
    assert host.output(f"{BIN}/fwguardctl --version") == f"fwguardctl {__version__}\n"
    assert host.output(f"{BIN}/fwguardd --version") == f"fwguardd {__version__}\n"
    assert host.output(f"{BIN}/fwguardctl check /shared/etc/fwguard.d").startswith("ok: ")


def test_units_need_a_program(host: Bed) -> None:
    """Where no fwguardd is in PATH, or it is in a home that the sandbox hides, that is said, and nothing is written."""
    missing = host.run("/shared/packaging/install-units", check=False)
    assert (missing.returncode, "there is no fwguardd in PATH" in missing.stderr) == (1, True)
    host.run(f"sh -c 'mkdir -p /root/bin; cp {BIN}/fwguardd {BIN}/fwguardctl /root/bin'")
    hidden = host.run("env PATH=/root/bin:/usr/bin:/bin /shared/packaging/install-units", check=False)
    assert (hidden.returncode, "lies in a home" in hidden.stderr) == (1, True)
    assert host.run("test -e /etc/fwguard.d -o -e /usr/share/fwguardd", check=False).returncode == 1


def test_units_run_what_pip_installed(host: Bed) -> None:
    """install-units writes the units with the right paths: the service starts, rehearses with its Python, reloads."""
    told = host.output(f"{WITH_IT} /shared/packaging/install-units")
    assert "nothing is started" in told
    assert host.output("iptables-save") == ""
    host.run("systemctl enable --now fwguardd")
    assert host.output(f"cat /proc/{host.show('fwguardd', 'MainPID')}/cmdline").startswith(f"{BIN}/python")
    assert "--dport 22 " in host.output("iptables-save")
    host.run("systemctl reload fwguardd")
    host.run("sh /usr/lib/fwguardd/fwguardd-boot --check")


def test_the_package_does_not_come_beside_it(host: Bed) -> None:
    """The units of install-units would hide those of the package, so packaging/install refuses."""
    refused = host.run("/shared/packaging/install --no-start", check=False)
    assert (refused.returncode, "packaging/install-units --remove" in refused.stderr) == (1, True)


def test_units_can_be_taken_away(host: Bed) -> None:
    """--remove leaves the rules in force, and the settings."""
    before = host.output("nft --handle --stateless list ruleset")
    host.run(f"{WITH_IT} /shared/packaging/install-units --remove")
    assert host.output("nft --handle --stateless list ruleset") == before
    assert host.output("find /usr /etc -name '*fwguardd*' -not -path '/usr/share/doc/*'").split() == [
        "/etc/fwguardd.yaml"
    ]
