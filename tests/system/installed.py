"""The package of this checkout, installed once on the pristine root: a layer that beds share."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.system.bed import Bed
from tests.system.packaged import ROOT, built_package
from tests.system.roots import pristine_root


@cache
def installed_layer() -> Path:
    """What dpkg writes when it installs the package, kept beside the package for as long as that is.

    To install it anew for each bed would take longer than to boot the bed.
    """
    package, root = built_package(), pristine_root()
    kept = package.parent / f"installed-{root.name}-{root.stat().st_mtime_ns}"  # A root that was made anew is another.
    with (ROOT / "build" / "installed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.is_dir():
            _install(package, root, kept)
    return kept


def _install(package: Path, root: Path, kept: Path) -> None:
    unfinished = kept.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="fwguardd-installed-") as shared, Bed(root, Path(shared)) as bed:
        shutil.copyfile(package, bed.file("/var/tmp/fwguardd.deb"))
        bed.prepare("dpkg --install /var/tmp/fwguardd.deb")
        subprocess.run(["cp", "--archive", bed.written, unfinished], check=True)
    unfinished.rename(kept)
