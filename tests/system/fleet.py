"""Several booted machines on one network: hosts with sshd, and a controller that manages them with Ansible."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from tests.system.bed import Bed
from tests.system.packaged import ROOT, built_package
from tests.system.roots import pristine_root

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PACKAGES = ("ansible-core", "openssh-server", "python3-apt")
"""What the machines have besides those of other tests. One root serves the controller and the hosts."""

LONGEST_PLAY = 900.0
"""Seconds; a playbook takes a minute for three hosts on a busy machine, and waits for a host that undoes a change."""

PROJECT = "/root/project"
NETWORK = "192.0.2"


class Fleet:
    """A controller, and hosts with names of their own, which it reaches as root over ssh."""

    def __init__(self, names: Iterable[str], folder: Path) -> None:
        self._own = ExitStack()
        self._transcript = folder / "transcript"
        self.controller = self._machine("controller", folder)
        self.hosts = {name: self._machine(name, folder) for name in names}

    def __enter__(self) -> Self:
        self._prepare_controller()
        self._on_network("link add lan type bridge")
        self._on_network(f"address add {NETWORK}.1/24 dev lan")
        self._on_network("link set lan up")
        for number, host in enumerate(self.hosts.values(), start=11):
            self._connect(host, number)
        return self

    def __exit__(self, *_: object) -> None:
        self._own.close()

    def _machine(self, name: str, folder: Path) -> Bed:
        shared = folder / name
        shared.mkdir()
        return self._own.enter_context(Bed(pristine_root(PACKAGES), shared))

    def _prepare_controller(self) -> None:
        """Install fwguardd on it, for its checks, copy the role, and make a key that the hosts accept."""
        bed = self.controller
        shutil.copyfile(built_package(), bed.file("/var/tmp/fwguardd.deb"))
        bed.prepare("dpkg --install /var/tmp/fwguardd.deb")
        shutil.copytree(ROOT / "packaging" / "ansible", bed.file(PROJECT))
        shutil.copyfile(built_package(), bed.file(f"{PROJECT}/fwguardd.deb"))
        bed.prepare("ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
        bed.boot()
        known = bed.file("/root/.ssh/known_hosts")
        public = bed.file("/etc/ssh/ssh_host_ed25519_key.pub").read_text()
        known.write_text("".join(f"{NETWORK}.{11 + number} {public}" for number in range(len(self.hosts))))

    def _connect(self, bed: Bed, number: int) -> None:
        bed.file("/root/.ssh").mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(self.controller.file("/root/.ssh/id_ed25519.pub"), bed.file("/root/.ssh/authorized_keys"))
        bed.boot()
        self._on_network(f"link add port{number} type veth peer name eth0 netns {bed.leader}")
        self._on_network(f"link set port{number} master lan up")
        bed.run(f"ip address add {NETWORK}.{number}/24 dev eth0")
        bed.run("ip link set eth0 up")
        bed.run("systemctl start ssh")

    def _on_network(self, words: str) -> None:
        """Run ip in the network of the controller; process ids are those outside of it."""
        argv = ["nsenter", f"--net=/proc/{self.controller.leader}/ns/net", "ip", *words.split()]
        subprocess.run(argv, check=True)

    def play(self, arguments: str = "") -> subprocess.CompletedProcess[str]:
        """Run the playbook on the controller. What it prints is appended to the transcript of the fleet, too."""
        command = f"ansible-playbook playbook.yml {arguments}".rstrip()
        done = self.controller.run(
            f"sh -c {shlex.quote(f'cd {PROJECT} && {command}')}", check=False, longest=LONGEST_PLAY
        )
        with self._transcript.open("a", encoding="utf-8") as transcript:
            transcript.write(f"$ {command}\n{done.stdout}{done.stderr}\n")
        return done
