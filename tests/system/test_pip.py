"""fwguardd from its wheel, in a virtual environment, as pip and pipx install it; offline.

The tests are one story, and run in the order in which they stand here.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pip
import pytest

from fwguardd import __version__
from tests.system.bed import Bed
from tests.system.roots import is_own_suite, pristine_root

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
BIN = "/opt/fwguardd/bin"
INSTALLED = {
    "/usr/lib/fwguardd": "packaging/fwguardd-boot",
    "/usr/lib/systemd/catalog": "packaging/fwguardd.catalog",
    "/usr/share/fwguardd": "packaging/emergency",
    "/usr/local/share/man": "packaging/man",
    "/usr/local/share": "packaging/completions",
}
"""Directories that fwguardd-install-units fills without a change, and where the files are in the checkout."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A booted machine with the wheel of this checkout in a virtual environment, and the files of the checkout."""
    shared = tmp_path_factory.mktemp("host")
    root, with_pip = pristine_root(() if is_own_suite() else ("python3-pip",)), ""
    with Bed(root, shared) as bed:
        wheel = _wheel(tmp_path_factory.mktemp("wheel"))
        shutil.copyfile(wheel, shared / wheel.name)
        for name in ("etc", "packaging"):
            shutil.copytree(ROOT / name, shared / name)
        if is_own_suite():
            # The bed has no pip; this environment's serves the one in it. With another Python it may not work.
            shutil.copytree(Path(pip.__file__).parent, shared / "pip" / "pip")
            with_pip = "env PYTHONPATH=/shared/pip "
        bed.boot()
        bed.run("python3 -m venv --system-site-packages --without-pip /opt/fwguardd")
        bed.run(f"{with_pip}{BIN}/python -m pip install --no-index --no-deps /shared/{wheel.name}")
        yield bed


def _wheel(folder: Path) -> Path:
    """Built as pip builds it, of a copy, since setuptools writes into the tree."""
    for name in ("etc", "fwguardd", "packaging"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copyfile(ROOT / name, folder / name)
    build = ["/usr/bin/python3", "-I", "-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check"]
    subprocess.run([*build, "--outdir", folder / "dist", folder], check=True, capture_output=True, text=True)
    (wheel,) = (folder / "dist").glob(f"fwguardd-{__version__}-*.whl")
    return wheel


def _files(path: Path) -> set[tuple[str, bytes]]:
    """Name and content of a file, or of all files in a directory."""
    paths = [path] if path.is_file() else path.rglob("*")
    return {(found.name, found.read_bytes()) for found in paths if found.is_file()}


def test_the_commands_work(host: Bed) -> None:
    """Both programs are there and know their version; the shipped rules pass a check."""
    assert host.output(f"{BIN}/fwguardctl --version") == f"fwguardctl {__version__}\n"
    assert host.output(f"{BIN}/fwguardd --version") == f"fwguardd {__version__}\n"
    assert host.output(f"{BIN}/fwguardctl check /shared/etc/fwguard.d").startswith("ok: ")


def test_a_checkout_needs_the_programs(host: Bed) -> None:
    """From a checkout: without fwguardd in PATH, or with one in a home directory, which the sandbox of the service
    hides, the script says so and writes nothing."""
    missing = host.run("/shared/packaging/fwguardd-install-units", check=False)
    assert (missing.returncode, "fwguardd is not in PATH" in missing.stderr) == (1, True)
    host.run(f"sh -c 'mkdir -p /root/bin; cp {BIN}/fwguardd {BIN}/fwguardctl /root/bin'")
    hidden = host.run("env PATH=/root/bin:/usr/bin:/bin /shared/packaging/fwguardd-install-units", check=False)
    assert (hidden.returncode, "is in a home directory" in hidden.stderr) == (1, True)
    assert host.run("test -e /etc/fwguard.d -o -e /usr/share/fwguardd", check=False).returncode == 1


def test_the_wheel_has_what_the_service_needs(host: Bed) -> None:
    """Units, boot loader, emergency rules, settings, rules, manual pages and completions come from the wheel alone, and
    are those of the checkout."""
    host.run("mv /shared/packaging /shared/etc /root")
    output = host.output(f"{BIN}/fwguardd-install-units")
    assert "nothing is started" in output
    assert host.output("iptables-save") == ""
    for installed, source in {**INSTALLED, "/etc/fwguard.d": "etc/fwguard.d"}.items():
        assert _files(host.file(installed)) >= _files(ROOT / source), installed
    assert host.file("/etc/fwguardd.yaml").read_bytes() == (ROOT / "etc" / "fwguardd.yaml").read_bytes()


def test_units_run_what_pip_installed(host: Bed) -> None:
    """The units have the paths of the virtual environment: the service starts, rehearses with its Python, reloads."""
    host.run("systemctl enable --now fwguardd")
    assert host.output(f"cat /proc/{host.show('fwguardd', 'MainPID')}/cmdline").startswith(f"{BIN}/python")
    assert "--dport 22 " in host.output("iptables-save")
    host.run("systemctl reload fwguardd")
    host.run("sh /usr/lib/fwguardd/fwguardd-boot --check")


def test_the_service_comes_back_after_a_reboot(host: Bed) -> None:
    """The boot loader and the daemon are enabled together: both have run after a boot, and the rules are loaded."""
    host.reboot()
    assert host.show("fwguardd-boot", "Result") == "success"
    assert host.show("fwguardd", "ActiveState") == "active"
    assert "--dport 22 " in host.output("iptables-save")


def test_the_package_does_not_come_beside_it(host: Bed) -> None:
    """The units in /usr/local would hide those of the package, so packaging/install refuses."""
    refused = host.run("/root/packaging/install --no-start", check=False)
    assert (refused.returncode, "fwguardd-install-units --remove" in refused.stderr) == (1, True)


def test_units_can_be_removed(host: Bed) -> None:
    """--remove leaves the rules in force, and the files in /etc; it says how to accept everything."""
    before = host.output("nft --handle --stateless list ruleset")
    output = host.output(f"{BIN}/fwguardd-install-units --remove")
    assert "fwguardctl open" in output
    assert host.output("nft --handle --stateless list ruleset") == before
    assert host.output("find /usr /etc -name '*fwguard*' -not -path '/usr/share/doc/*'").split() == [
        "/etc/fwguard.d",
        "/etc/fwguardd.yaml",
    ]
