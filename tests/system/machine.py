"""The hardware of a bed: runs in a private mount namespace, boots systemd in it, and boots it again when it reboots.

    machine.py ROOT SHARED

ROOT is the lower layer of an overlay, or several with colons between them. Its upper layer is a tmpfs: all that is
written lives as long as this process, over reboots too. SHARED is a directory that both sides see. Says "ready" when
the file system is there, waits for a line, then says "booted PID" for each boot. Ends when systemd powers off, or when
its standard input is closed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

MASKED = (
    "systemd-udevd.service", "systemd-udevd-kernel.socket", "systemd-udevd-control.socket",
    "systemd-udev-trigger.service",
    "systemd-timesyncd.service", "systemd-resolved.service", "systemd-networkd.service", "systemd-networkd.socket",
    "systemd-logind.service", "systemd-pstore.service", "systemd-binfmt.service", "systemd-sysctl.service",
    "systemd-modules-load.service", "getty.target", "console-getty.service", "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "motd-news.timer",
)  # fmt: skip
"""What a machine without hardware has no use for."""

NOT_FOR_IT = "-sys_module,-sys_rawio,-sys_time,-wake_alarm,-mac_admin,-mac_override,-block_suspend"
"""Capabilities that would reach the real machine."""

DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "kmsg", "net/tun")


def main(root: str, shared: str) -> int:
    """Mount, wait, boot, and boot again. The exit code is 0 after a power-off."""
    place = Path(shared) / "machine"
    tree = _overlay(place, root)
    _prepare(tree)
    print("ready", flush=True)
    if not sys.stdin.readline():
        return 0
    running: list[subprocess.Popen[bytes]] = []
    threading.Thread(target=_end_with_the_test, args=(running,), daemon=True).start()
    while True:
        namespaces = ["--mount", "--cgroup", "--pid", "--net", "--uts", "--ipc", "--fork", "--kill-child"]
        argv = ["unshare", *namespaces, "--propagation", "private", "--", sys.executable, "-I", "-S", __file__]
        system = subprocess.Popen([*argv, "--inside", str(tree), shared], stdin=subprocess.DEVNULL)
        running[:] = [system]
        children = Path(f"/proc/{system.pid}/task/{system.pid}/children")
        while not (first := children.read_text().split()) and system.poll() is None:
            time.sleep(0.005)
        print(f"booted {first[0] if first else 0}", flush=True)
        # reboot(2): in a pid namespace RESTART ends its first process with SIGHUP, and POWER_OFF with SIGINT.
        if system.wait() != 128 + signal.SIGHUP and system.returncode != -signal.SIGHUP:
            return 0


def _end_with_the_test(running: list[subprocess.Popen[bytes]]) -> None:
    sys.stdin.read()
    for system in running:
        system.kill()  # unshare --kill-child then ends the first process, and the kernel all others of the namespace.
    os._exit(1)


def _overlay(place: Path, root: str) -> Path:
    place.mkdir()
    _mount("tmpfs", place, "-t", "tmpfs", "-o", "mode=755")
    for name in ("upper", "work", "root"):
        (place / name).mkdir()
    layers = f"lowerdir={root},upperdir={place}/upper,workdir={place}/work"
    _mount("overlay", place / "root", "-t", "overlay", "-o", f"{layers},index=off,xino=off,redirect_dir=on")
    return place / "root"


def _prepare(tree: Path) -> None:
    """Make it nobody's machine yet: its own identity, nothing enabled, nothing for hardware."""
    (tree / "etc/machine-id").write_text("")
    (tree / "etc/fstab").write_text("")
    (tree / "etc/hostname").write_text("bed\n")
    units = tree / "etc/systemd/system"
    for wanted in [*units.glob("*.wants/*"), *units.glob("*.requires/*")]:
        wanted.unlink()
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    for name in MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    # Its journal outlives a reboot, like everything in the upper layer.
    (tree / "var/log/journal").mkdir(exist_ok=True)


def inside(tree: str, shared: str) -> None:
    """As the first process of the new namespaces: mount what a kernel would have, and become systemd."""
    os.chdir(tree)
    for folder in ("proc", "sys", "dev", "run", "tmp", "shared", "oldroot"):
        Path(folder).mkdir(exist_ok=True)
    _mount("proc", "proc", "-t", "proc", "-o", "nosuid,nodev,noexec")
    _mount("sysfs", "sys", "-t", "sysfs", "-o", "ro,nosuid,nodev,noexec")
    _mount("cgroup2", "sys/fs/cgroup", "-t", "cgroup2", "-o", "nosuid,nodev,noexec")
    _devices()
    _mount("tmpfs", "run", "-t", "tmpfs", "-o", "mode=755,nosuid,nodev")
    _mount("tmpfs", "tmp", "-t", "tmpfs", "-o", "mode=1777,nosuid,nodev")
    # What the namespaces do not make private stays as it is. /proc/sys/net belongs to the new network namespace.
    _read_only("proc/sys", but="proc/sys/net")
    for knob in ("proc/sysrq-trigger", "proc/irq", "proc/bus", "proc/acpi"):
        if Path(knob).exists():
            _read_only(knob)
    _mount(shared, "shared", "--bind")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["hostname", "bed"], check=True)
    subprocess.run(["pivot_root", ".", "oldroot"], check=True)
    os.chdir("/")
    become = (
        f"umount -l /oldroot; rmdir /oldroot; exec setpriv --bounding-set {NOT_FOR_IT} /lib/systemd/systemd --system"
    )
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    os.execve(
        "/bin/sh", ["sh", "-c", f"{become} --log-target=journal --show-status=no"], {"PATH": path, "container": "bed"}
    )


def _devices() -> None:
    _mount("tmpfs", "dev", "-t", "tmpfs", "-o", "mode=755,nosuid")
    for folder in ("dev/pts", "dev/shm", "dev/mqueue", "dev/net"):
        Path(folder).mkdir()
    for name in DEVICES:
        if Path("/dev", name).exists():
            Path("dev", name).touch()
            _mount(f"/dev/{name}", f"dev/{name}", "--bind")
    _mount("devpts", "dev/pts", "-t", "devpts", "-o", "newinstance,mode=620,ptmxmode=666,gid=5")
    _mount("tmpfs", "dev/shm", "-t", "tmpfs", "-o", "mode=1777")
    _mount("mqueue", "dev/mqueue", "-t", "mqueue")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    for name, target in links.items():
        Path("dev", name).symlink_to(target)


def _read_only(path: str, but: str | None = None) -> None:
    _mount(path, path, "--bind")
    _mount(path, path, "-o", "remount,bind,ro")
    if but is not None:
        _mount(but, but, "--bind")
        _mount(but, but, "-o", "remount,bind,rw")


def _mount(what: str | Path, where: str | Path, *options: str) -> None:
    remount = any(option.startswith("remount") for option in options)
    subprocess.run(["mount", *options, *([] if remount else [str(what)]), str(where)], check=True)


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        inside(*sys.argv[2:])
    sys.exit(main(*sys.argv[1:]))
