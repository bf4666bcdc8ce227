"""The Debian package of this checkout, built once and kept for as long as nothing that goes into it changes."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ("pyproject.toml", "README.md", "etc", "fwguardd", "packaging")
LONGEST_BUILD = 300.0
"""Seconds; a build takes 7 on an idle machine."""


@cache
def built_package() -> Path:
    """The .deb that packaging/build-deb makes of this checkout, in a throwaway root without a network to fetch anything
    from."""
    kept = ROOT / "build" / "deb"
    kept.mkdir(parents=True, exist_ok=True)
    with (ROOT / "build" / "deb.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Two processes share the tests: one builds, the other waits for it.
        folder = kept / _digest()
        if not folder.is_dir():
            _build(kept, folder)
    (package,) = folder.glob("fwguardd_*_all.deb")
    return package


def _build(kept: Path, folder: Path) -> None:
    for old in kept.iterdir():
        shutil.rmtree(old)
    fresh = kept / "new"
    argv = ["unshare", "--net", str(ROOT / "packaging" / "build-deb"), "--throwaway", str(fresh)]
    built = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LONGEST_BUILD)
    assert built.returncode == 0, built.stderr
    assert built.stdout.split() == [str(path) for path in fresh.iterdir()]
    assert left_by_builds() == []
    fresh.rename(folder)


def left_by_builds() -> list[str]:
    """What builds have mounted or made on this machine. Other tests mount and unmount other things at the same time."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    mounts = [line for line in lines if "fwguardd-build" in line or "/build/checkout" in line]
    return mounts + [str(path) for path in (Path("/build/checkout"), Path("/build/out")) if path.exists()]


def with_version(package: Path, version: str, folder: Path) -> Path:
    """The same package under another version, as an upgrade or a downgrade wants it."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    lines = [
        f"Version: {version}" if line.startswith("Version:") else line
        for line in control.read_text(encoding="utf-8").splitlines()
    ]
    control.write_text("\n".join(lines) + "\n", encoding="utf-8")
    made = folder / f"fwguardd_{version}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, made], check=True, capture_output=True
    )
    shutil.rmtree(tree)
    return made


def _digest() -> str:
    """Of the names, modes and contents of everything that goes into the package."""
    digest = hashlib.sha256()
    for path in sorted(path for name in INPUTS for path in (ROOT / name, *(ROOT / name).rglob("*"))):
        if path.is_file() and path.suffix != ".pyc":
            data = path.read_bytes()
            digest.update(f"{path.relative_to(ROOT)} {path.stat().st_mode:o} {len(data)}\n".encode() + data)
    return digest.hexdigest()[:16]
