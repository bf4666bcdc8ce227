"""Pristine root file systems of the supported distributions, made once by mmdebstrap and kept for later runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGES: Final = (
    "systemd", "systemd-sysv", "dbus", "iptables", "ipset", "nftables", "iproute2", "procps",
    "python3", "python3-yaml", "python3-watchdog", "python3-sdnotify", "python3-structlog",
)  # fmt: skip
"""What a small server has, and what the package of fwguardd depends on or recommends."""

VARIABLE: Final = "FWGUARD_TEST_SUITE"
"""The environment variable that names the suite to test on; the default is that of this machine."""

_PASSED_ON: Final = ("Acquire::Check-", "Acquire::http", "Acquire::Retries")
"""Settings of apt that say how this machine reaches its mirrors."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A supported distribution. ``publisher`` is the ID of os-release(5). ``keyring`` verifies its archive, a file of
    the Debian package ``keyring_package``."""

    name: str
    suite: str
    publisher: str
    components: str
    keyring: str
    keyring_package: str


_DEBIAN: Final = (
    "debian", "main",
    "/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring",
)  # fmt: skip
_UBUNTU: Final = (
    "ubuntu", "main universe",
    "/usr/share/keyrings/ubuntu-archive-keyring.gpg", "ubuntu-keyring",
)  # fmt: skip

DISTRIBUTIONS: Final = (
    Distribution("Debian 12", "bookworm", *_DEBIAN),
    Distribution("Debian 13", "trixie", *_DEBIAN),
    Distribution("Ubuntu 24.04", "noble", *_UBUNTU),
)


def pristine_root(extra: tuple[str, ...] = ()) -> Path:
    """The directory of a root file system with `PACKAGES`: for reading, as the lower layer of an overlay.

    It lies in $XDG_CACHE_HOME/fwguardd-tests under a name that changes with the list of packages, and is made if it is
    not there, which takes half a minute and the mirrors that this machine's apt knows.
    """
    suite, packages = _suite(), (*PACKAGES, *extra)
    cache = _cache()
    root = cache / f"{suite}-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:12]}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _make(root, suite, packages)
    return root


def is_own_suite() -> bool:
    """Whether the root is of the same distribution as this machine, so that both have the same Python."""
    return _suite() == _os_release("VERSION_CODENAME")


def _suite() -> str:
    return os.environ.get(VARIABLE) or _os_release("VERSION_CODENAME")


def _cache() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fwguardd-tests"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _make(root: Path, suite: str, packages: tuple[str, ...]) -> None:
    unfinished = root.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    # The minimum of Debian has apt, that of Ubuntu has not.
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(('apt', *packages))}"]
    command += [f"--aptopt={setting}" for setting in _apt_settings()]
    made = subprocess.run(
        [*command, suite, str(unfinished), *_mirrors(suite)], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, f"mmdebstrap {suite} failed:\n{made.stderr[-2000:]}"
    unfinished.rename(root)


def _os_release(wanted: str) -> str:
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key == wanted:
            return value.strip('"')
    raise AssertionError(f"/etc/os-release does not name a {wanted}")


def _mirrors(suite: str) -> list[str]:
    """The lines of sources.list(5) for a suite: as apt on this machine has them, if it has them; else made for it."""
    found = _configured_mirrors(suite)
    if found:
        return found
    named = [distribution for distribution in DISTRIBUTIONS if distribution.suite == suite]
    assert named, f"neither apt nor {Path(__file__).name} knows a mirror of {suite}"
    (distribution,) = named
    archive = f"{_archive(distribution.publisher)} {suite} {distribution.components}"
    return [f"deb [signed-by={_keyring(distribution)}] {archive}"]


def _archive(publisher: str) -> str:
    """The address of an archive: that which a variable of the environment names, or which apt on this machine uses."""
    variable = f"FWGUARD_TEST_ARCHIVE_{publisher.upper()}"
    if named := os.environ.get(variable):
        return named
    suite = _os_release("VERSION_CODENAME")
    lines = [line.split() for line in _configured_mirrors(suite)]
    addresses = [address for _, address, release, part in lines if (release, part) == (suite, "main")]
    own = _os_release("ID") == publisher
    assert own and addresses, f"apt on this machine knows no archive of {publisher}; name one with ${variable}"
    return addresses[0]


def _keyring(distribution: Distribution) -> Path:
    """The keyring that verifies the archive of a distribution: the installed one, or else that in a package of Debian
    13, which Debian's own keyring verifies. The latter is kept in the cache."""
    installed = Path(distribution.keyring)
    if installed.exists():
        return installed
    kept = _cache() / installed.name
    if not kept.exists():
        with tempfile.TemporaryDirectory(prefix="fwguardd-keyring-") as folder:
            _download_keyring(distribution, Path(folder))
            shutil.copyfile(Path(folder, "extracted", installed.relative_to("/")), kept)
    return kept


def _download_keyring(distribution: Distribution, folder: Path) -> None:
    """Download the package with apt, configured for Debian 13 in this folder only, and extract it there."""
    publisher, components, keyring, _ = _DEBIAN
    missing = f"{distribution.keyring} is missing, so packages of {distribution.name} cannot be verified"
    assert Path(keyring).exists(), f"{missing}; install it"
    for name in ("lists/partial", "cache/archives/partial", "extracted"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text(f"deb [signed-by={keyring}] {_archive(publisher)} trixie {components}\n")
    places = {"Dir::State::lists": "lists", "Dir::Cache": "cache", "Dir::Etc::sourcelist": "sources.list"}
    options = [f"-o{key}={folder / name}" for key, name in places.items()]
    options += ["-oDir::Etc::sourceparts=-", "-oAPT::Sandbox::User=root"]
    for command in (["update"], ["download", distribution.keyring_package]):
        ended = subprocess.run(
            ["apt-get", "-qq", *options, *command], cwd=folder, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, f"{missing}, and apt could not download it:\n{ended.stderr[-2000:]}"
    for archive in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", str(archive), str(folder / "extracted")], check=True)


def _configured_mirrors(suite: str) -> list[str]:
    """Those of other suites' and other publishers' packages are left out."""
    targets = _output(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"
    )
    lines = {tuple(line.split()) for line in targets.splitlines()}
    components = ("main", "universe")
    return [
        f"deb {uri} {name} {part}" for uri, name, part in sorted(lines) if name.startswith(suite) and part in components
    ]


def _apt_settings() -> list[str]:
    return [line for line in _output("apt-config", "dump").splitlines() if line.startswith(_PASSED_ON)]


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
