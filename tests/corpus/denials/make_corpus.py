"""Make `kernel-lines.txt`: send packets past LOG rules in namespaces of our own, and keep what the kernel prints.

Run as root from the top of the tree: `python3 -m tests.corpus.denials.make_corpus [--only SCENE]`. Nothing is
loaded or sent outside the namespaces. The kernel log is one per machine, so each run puts a tag of its own before
the prefix, and takes it off again; scenes about the length of the line are not tagged, and known by an address.

Each line of the file is the name of the shape, the packet as hexadecimal (`-` where the kernel made the packet
itself), and the kernel's text, tab-separated.
"""

from __future__ import annotations

import argparse
import secrets
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.kmsg import KernelLog, Record, Start
from tests.corpus.denials.scenes import all_scenes
from tests.netns.frames import Device, LogFromEveryNamespace, own_network_namespace

if TYPE_CHECKING:
    from tests.corpus.denials.scene import Scene

LINES: Final = Path(__file__).parent / "kernel-lines.txt"
UNTAGGED_ADDRESS: Final = "2001:0db8:00c0:ffee:"
PATIENCE: Final = 2.0
"""Seconds to wait for a line."""


def run(command: str, prefix: str) -> None:
    """One command of a scene, in the present namespace."""
    words = [word.replace("{prefix}", prefix) for word in shlex.split(command.replace("{{", "{").replace("}}", "}"))]
    done = subprocess.run(words, check=False, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(words)}: {done.stderr.strip()}")


def play(scene: Scene, logging: LogFromEveryNamespace) -> list[tuple[str, bytes, str]]:
    """Name, packet and line of everything in a scene."""
    tag = f"{secrets.token_hex(2)}~" if scene.tagged else ""
    made = []
    with own_network_namespace():
        devices = [Device(name, tun=scene.tun) for name in scene.devices]
        for number, device in enumerate(devices, start=1):
            if not scene.tun:
                address = f"02:00:5e:10:00:{(number - 1) * 16 + 1:02x}"
                subprocess.run(["ip", "link", "set", device.name, "address", address], check=True)
            subprocess.run(["ip", "link", "set", device.name, "addrgenmode", "none", "up"], check=True)
        for command in scene.setup:
            run(command, tag + scene.prefix)
        with KernelLog(start=Start.END) as log:
            for name, frame in scene.frames.items():
                logging.set()
                devices[0].send(frame)
                made.append((name, packet_of(frame, scene), the_line(log, scene, tag, name)))
            for name, action in scene.actions.items():
                logging.set()
                action()
                made.append((name, b"", the_line(log, scene, tag, name)))
        for device in devices:
            device.close()
    return made


def packet_of(frame: bytes, scene: Scene) -> bytes:
    """The packet that the line is about, without its link-layer header."""
    if scene.answered:
        return b""
    if scene.tun:
        return frame
    return frame[18:] if frame[12:14] == b"\x81\x00" else frame[14:]


def the_line(log: KernelLog, scene: Scene, tag: str, name: str) -> str:
    """The one line that the kernel prints about the last packet, without our tag."""
    start = spelled(tag + scene.prefix)
    found: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while not found and time.monotonic() < deadline:
        time.sleep(0.002)
        found = [
            reading.text
            for reading in log.read_available(1000)
            if isinstance(reading, Record)
            and reading.text.startswith(start)
            and (scene.tagged or UNTAGGED_ADDRESS in reading.text)
        ]
    if len(found) != 1:
        raise RuntimeError(f"{scene.name}: {name}: {len(found)} lines: {found}")
    return found[0].removeprefix(tag)


def spelled(prefix: str) -> str:
    """A prefix as /dev/kmsg spells it."""
    return prefix.replace("\\", "\\x5c")


def main() -> int:
    """Play the scenes and write the file; with --only, print one scene's lines instead."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="SCENE", help="print the lines of one scene; write nothing")
    wanted = parser.parse_args().only
    lines = []
    with LogFromEveryNamespace() as logging:
        for scene in all_scenes():
            if wanted in (None, scene.name):
                lines += ["\t".join((name, packet.hex() or "-", text)) for name, packet, text in play(scene, logging)]
    names = [line.split("\t")[0] for line in lines]
    if len(set(names)) != len(names):
        raise RuntimeError(f"names that occur twice: {sorted(name for name in names if names.count(name) > 1)}")
    if wanted is None:
        LINES.write_text("\n".join(lines) + "\n", encoding="ascii")
    else:
        sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
