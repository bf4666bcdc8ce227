"""Putting the checkout's files where the package puts them, for a bed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"

_PROGRAM = "#!/usr/bin/python3\nimport sys\n\nfrom fwguardd.{module} import main\n\nsys.exit(main())\n"


def install_checkout(tree: Path) -> None:
    """Install fwguardd below ``tree``, neither enabled nor started."""
    _copy(ROOT / "fwguardd", tree / "usr/lib/python3/dist-packages/fwguardd")
    _program(tree / "usr/sbin/fwguardd", _PROGRAM.format(module="daemon"))
    _program(tree / "usr/bin/fwguardctl", _PROGRAM.format(module="ctl.main"))
    _program(tree / "usr/lib/fwguardd/fwguardd-boot", (PACKAGING / "fwguardd-boot").read_text(encoding="utf-8"))
    _copy(PACKAGING / "emergency", tree / "usr/share/fwguardd")
    for unit in (PACKAGING / "systemd").glob("fwguardd*[.@]*"):
        folder = {".sysusers": "sysusers.d", ".tmpfiles": "tmpfiles.d"}.get(unit.suffix)
        name = f"{folder}/fwguardd.conf" if folder else f"systemd/system/{unit.name}"
        _copy(unit, tree / "usr/lib" / name)
    _copy(PACKAGING / "fwguardd.catalog", tree / "usr/lib/systemd/catalog/fwguardd.catalog")
    _copy(ROOT / "etc/fwguardd.yaml", tree / "etc/fwguardd.yaml")
    _copy(ROOT / "etc/fwguard.d", tree / "etc/fwguard.d")
    for program in ("systemd-sysusers", "journalctl --update-catalog"):
        subprocess.run(["chroot", str(tree), *program.split()], check=True)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)


def _program(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    target.chmod(0o755)
