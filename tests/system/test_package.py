"""The Debian package, looked at from outside: what is in it, what it asks for, and what lintian has to say."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from fwguardd import __version__
from tests.system.packaged import ROOT, built_package, with_version
from tests.waiting import LONGEST

if TYPE_CHECKING:
    from pathlib import Path

UNITS = {
    path.name for path in (ROOT / "packaging" / "systemd").iterdir() if path.suffix in (".service", ".socket", ".timer")
}
ONE_OF_EACH = {
    "etc/fwguardd.yaml",
    "usr/bin/fwguardctl",
    "usr/lib/fwguardd/fwguardd-boot",
    "usr/lib/python3/dist-packages/fwguardd/daemon.py",
    "usr/lib/systemd/catalog/fwguardd.catalog",
    "usr/lib/sysusers.d/fwguardd.conf",
    "usr/lib/tmpfiles.d/fwguardd.conf",
    "usr/sbin/fwguardd",
    "usr/share/bash-completion/completions/fwguardctl",
    "usr/share/bash-completion/completions/fwguardd",
    "usr/share/doc/fwguardd/README.md.gz",
    "usr/share/doc/fwguardd/changelog.gz",
    "usr/share/doc/fwguardd/copyright",
    "usr/share/doc/fwguardd/examples/ci/github.yml",
    "usr/share/doc/fwguardd/examples/ci/gitlab.yml",
    "usr/share/doc/fwguardd/examples/docker/60-docker.rules",
    "usr/share/doc/fwguardd/examples/prometheus/fwguardd-dashboard.json",
    "usr/share/doc/fwguardd/examples/prometheus/fwguardd.rules.yml",
    "usr/share/doc/fwguardd/examples/report/README",
    "usr/share/doc/fwguardd/examples/report/fwguardd-report-mail",
    "usr/share/doc/fwguardd/examples/report/fwguardd-report.service",
    "usr/share/doc/fwguardd/examples/report/fwguardd-report.timer",
    "usr/share/doc/fwguardd/examples/router/60-router.rules",
    "usr/share/doc/fwguardd/examples/siem/elastic-agent.yml",
    "usr/share/doc/fwguardd/examples/siem/fluent-bit.conf",
    "usr/share/doc/fwguardd/examples/siem/journal-upload.conf",
    "usr/share/doc/fwguardd/examples/siem/rsyslog.conf",
    "usr/share/doc/fwguardd/examples/siem/vector.yaml",
    "usr/share/fish/vendor_completions.d/fwguardctl.fish",
    "usr/share/fish/vendor_completions.d/fwguardd.fish",
    "usr/share/man/man5/fwguard.d.5.gz",
    "usr/share/man/man5/fwguardd.yaml.5.gz",
    "usr/share/man/man7/fwguard-cookbook.7.gz",
    "usr/share/man/man7/fwguard-monitoring.7.gz",
    "usr/share/man/man8/fwguardctl.8.gz",
    "usr/share/man/man8/fwguardd.8.gz",
    "usr/share/fwguardd/schema/policy.tests.schema.json",
    "usr/share/zsh/vendor-completions/_fwguardctl",
    "usr/share/zsh/vendor-completions/_fwguardd",
}
if subprocess.run(["dpkg-vendor", "--derives-from", "Ubuntu"], check=False).returncode == 0:
    # AppArmor there knows the profile, and needs it.
    ONE_OF_EACH |= {"etc/apparmor.d/fwguardd"}
PROGRAMS = {"usr/bin/fwguardctl", "usr/sbin/fwguardd", "usr/lib/fwguardd/fwguardd-boot"}


@dataclass(frozen=True)
class Entry:
    """A line of the package's table of contents."""

    mode: str
    owner: str


@pytest.fixture(scope="session")
def package() -> Path:
    """The package of this checkout."""
    return built_package()


@pytest.fixture(scope="session")
def contents(package: Path) -> dict[str, Entry]:
    """What it installs, by path."""
    found = {}
    for line in _output("dpkg-deb", "--contents", package).splitlines():
        mode, owner, _size, _day, _time, path = line.split(None, 5)
        found[path.removeprefix("./")] = Entry(mode, owner)
    del found[""]
    return found


@pytest.fixture(scope="session")
def tree(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What it installs, unpacked, with the control files in DEBIAN."""
    folder = tmp_path_factory.mktemp("unpacked")
    _output("dpkg-deb", "--raw-extract", package, folder)
    return folder


def _output(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LONGEST)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_everything_a_user_needs_is_in_it(contents: dict[str, Entry]) -> None:
    """Programs, units, manual, completions, catalog, the files of /etc; nothing that belongs to the checkout only."""
    assert set(contents) >= ONE_OF_EACH
    rules = {f"etc/fwguard.d/{path.name}" for path in (ROOT / "etc" / "fwguard.d").iterdir()}
    sets = {
        f"usr/share/fwguardd/{path.relative_to(ROOT / 'packaging' / 'emergency')}"
        for path in (ROOT / "packaging" / "emergency").rglob("*.rules")
    }
    modules = [path for path in (ROOT / "fwguardd").rglob("*") if path.suffix in (".py", ".yaml")]
    code = {f"usr/lib/python3/dist-packages/{path.relative_to(ROOT)}" for path in modules}
    ansible = ROOT / "packaging" / "ansible"
    role = {f"usr/share/doc/fwguardd/examples/ansible/{path.relative_to(ansible)}" for path in _files_in(ansible)}
    # Below /lib or /usr/lib, as the distribution has it.
    units = {path for path in contents if "lib/systemd/system/" in path and not path.endswith("/")}
    assert {path.rpartition("/")[2] for path in units} == UNITS
    assert set(contents) >= rules | sets | code | role
    rest = {path for path in contents if not path.endswith("/")} - ONE_OF_EACH - rules - sets - code - units - role
    assert {re.sub(r"-[0-9.]+\.dist-info/.*", "", path) for path in rest} == {
        "usr/lib/python3/dist-packages/fwguardd",
        "usr/share/lintian/overrides/fwguardd",
    }


def test_root_owns_all_and_nobody_else_writes(contents: dict[str, Entry]) -> None:
    """Whoever can write a rule file or a program of these decides who reaches the host."""
    assert {entry.owner for entry in contents.values()} == {"root/root"}
    assert {entry.mode for path, entry in contents.items() if path.endswith("/")} == {"drwxr-xr-x"}
    assert {path for path, entry in contents.items() if entry.mode == "-rwxr-xr-x"} == PROGRAMS
    assert {entry.mode for path, entry in contents.items() if path not in PROGRAMS and not path.endswith("/")} == {
        "-rw-r--r--"
    }


def test_what_is_under_etc_is_the_administrators(contents: dict[str, Entry], tree: Path) -> None:
    """All files under /etc are conffiles, whose changes dpkg keeps; a first install has what the checkout has."""
    conffiles = (tree / "DEBIAN" / "conffiles").read_text(encoding="ascii").split()
    under_etc = [f"/{path}" for path in contents if path.startswith("etc/") and not path.endswith("/")]
    assert sorted(conffiles) == sorted(under_etc)
    for shipped in (ROOT / "etc").rglob("*"):
        if shipped.is_file():
            assert (tree / shipped.relative_to(ROOT)).read_bytes() == shipped.read_bytes()


def test_it_asks_for_what_it_uses(tree: Path) -> None:
    """iptables, systemd, and the distribution's own Python packages, for each that pyproject.toml names."""
    control = (tree / "DEBIAN" / "control").read_text(encoding="utf-8")
    assert f"\nVersion: {__version__}\n" in control
    asked = set(re.findall(r"[a-z0-9-]+(?= \(| \||,|\n|:)", re.findall(r"^Depends: (.*\n)", control, re.MULTILINE)[0]))
    assert asked >= {"iptables", "systemd", "python3", "python3-sdnotify", "python3-structlog", "python3-watchdog"}
    assert "python3-yaml" in asked
    assert not re.search(r"^(Conflicts|Breaks|Replaces):", control, re.MULTILINE), "apt must remove nobody's firewall"


def test_units_start_what_is_installed(contents: dict[str, Entry], tree: Path) -> None:
    """Every program that a unit runs is in the package, or in one that every host has."""
    started = set()
    for unit in tree.glob("**/systemd/system/*"):
        started |= set(re.findall(r"^Exec\w+=[-+!@:]*/(\S+)", unit.read_text(encoding="utf-8"), re.MULTILINE))
    assert started >= PROGRAMS
    assert started - set(contents) == {"usr/bin/python3"}
    for program in ("usr/bin/fwguardctl", "usr/sbin/fwguardd"):
        assert (tree / program).read_text(encoding="utf-8").startswith("#!/usr/bin/python3\n")


def test_only_an_upgrade_starts_anything(tree: Path) -> None:
    """No maintainer script enables a unit, or starts one that was not running; the boot loader is never started."""
    scripts = "".join((tree / "DEBIAN" / name).read_text(encoding="utf-8") for name in ("postinst", "prerm", "postrm"))
    assert re.findall(r"deb-systemd-invoke (\S+) (.*?)(?: >| \|\|)", scripts) == [
        ("try-restart", "'fwguardd-metrics.service' 'fwguardd.service'"),
        ("stop", "fwguardd.service $units"),
    ]
    units = 'units="fwguardd-rehearsal.socket fwguardd-kmsg.socket fwguardd-lists.timer fwguardd-metrics.service"'
    assert units in scripts
    assert "systemctl enable --now fwguardd" in scripts
    commands = re.sub(r"<<'END'\n.*?^END$", "", scripts, flags=re.DOTALL | re.MULTILINE)
    assert "iptables" not in commands
    assert not (tree / "DEBIAN" / "preinst").exists()


def test_lintian_has_nothing_to_say(package: Path) -> None:
    """Not even pedantic; what it would say is overridden with a reason, or mended."""
    shown = _output("lintian", "--allow-root", "-EvIL", "+pedantic", package)
    assert [line for line in shown.splitlines() if not line.startswith("N:")] == []


def test_maintainer_scripts_are_clean_shell(tree: Path) -> None:
    """Each is POSIX sh that any /bin/sh reads."""
    for name in ("postinst", "prerm", "postrm"):
        _output("busybox", "sh", "-n", tree / "DEBIAN" / name)


def test_a_package_can_be_given_another_version(package: Path, tmp_path: Path) -> None:
    """The tests of upgrades rest on it: the same contents, and dpkg takes the version for a newer one."""
    newer = with_version(package, "99.0", tmp_path)
    assert _output("dpkg-deb", "--field", newer, "Version") == "99.0\n"
    paths = [
        [line.split()[-1] for line in _output("dpkg-deb", "--contents", deb).splitlines()] for deb in (newer, package)
    ]
    assert paths[0] == paths[1]


def test_build_deb_tells_how_it_is_used() -> None:
    """A wrong argument builds nothing."""
    done = subprocess.run([ROOT / "packaging" / "build-deb", "--fast"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: packaging/build-deb [--throwaway] [DIRECTORY]" in done.stderr
