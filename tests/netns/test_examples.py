"""The shipped examples, taken as they are: real hosts in namespaces send real connections through them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.waiting import LONGEST, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.either_backend

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "etc" / "fwguard.d").glob("*.rules"))
EXAMPLES = ROOT / "packaging" / "examples"
SERVER = """
    import socket, sys
    server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
    print("ready", flush=True)
    while True:
        connection, (peer, *_) = server.accept()
        connection.sendall(peer.removeprefix("::ffff:").encode())
        connection.close()
"""
"""A server that sends to each client the address that it sees of it."""

CLIENT = """
    import socket, sys
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])) as connection:
        print(connection.makefile().read())
"""


class Node:
    """A host: a network namespace, in which commands run."""

    def __init__(self, own: ExitStack) -> None:
        self._own = own
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        own.callback(self._holder.wait)
        own.callback(self._holder.kill)
        before = Path("/proc/thread-self/ns/net").readlink()
        self.path = Path(f"/proc/{self._holder.pid}/ns/net")
        wait_until(lambda: self.path.readlink() != before, "a namespace")
        self.run("ip link set lo up")

    @property
    def pid(self) -> int:
        """The process that holds the namespace."""
        return self._holder.pid

    def run(self, command: str) -> None:
        """Run a command in it."""
        subprocess.run(["nsenter", f"--net={self.path}", *command.split()], check=True, timeout=LONGEST)

    def up(self, device: str, *addresses: str, gateway: str = "") -> None:
        """Give a device its addresses, and use gateways of both families."""
        for address in addresses:
            self.run(f"ip address add {address} dev {device}" + (" nodad" if ":" in address else ""))
        self.run(f"ip link set {device} up")
        for each in gateway.split():
            self.run(f"ip route add default via {each}")

    def serve(self, port: int) -> None:
        """Start a server that tells each client its address."""
        command = ["nsenter", f"--net={self.path}", sys.executable, "-c", textwrap.dedent(SERVER), str(port)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._own.callback(server.wait)
        self._own.callback(server.kill)
        assert server.stdout is not None
        self._own.callback(server.stdout.close)
        assert server.stdout.readline() == "ready\n"

    def seen_as(self, address: str, port: int, seconds: float = LONGEST) -> str:
        """The address that a server sees of this host; "" if the connection fails within so many seconds."""
        command = ["nsenter", f"--net={self.path}", sys.executable, "-c", textwrap.dedent(CLIENT), address, str(port)]
        ran = subprocess.run([*command, str(seconds)], capture_output=True, text=True, check=False)
        return ran.stdout.strip()


def _veth(one: Node | None, name: str, other: Node, other_name: str) -> None:
    """A cable between two hosts; None is the namespace of the test."""
    command = f"ip link add {name} type veth peer name {other_name} netns {other.pid}"
    if one is None:
        subprocess.run(command.split(), check=True)
    else:
        one.run(command)


def _load(files: list[Path], folder: Path, backend: str) -> None:
    """Load rule files in the namespace of the test, as a pass would."""
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    for family, program in (("4", "iptables"), ("6", "ip6tables")):
        argv = [sys.executable, "-m", "fwguardd.ctl.main", "render", "--family", family, "--rules-dir", str(folder)]
        rendered = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
        restore = [f"{program}-{backend}-restore", "--noflush", "-w", "5"]
        subprocess.run(restore, input=rendered.stdout, text=True, check=True)


@pytest.fixture
def nodes() -> Iterator[ExitStack]:
    """Ends the hosts and servers of a test."""
    with ExitStack() as own:
        yield own


def test_the_router_example_works_when_taken(tmp_path: Path, backend: str, nodes: ExitStack) -> None:
    """Beside the shipped rules: inner hosts reach the internet, over IPv4 with the router's address and over IPv6 with
    their own; the forwarded port reaches the inner server from outside and, by hairpin, from inside; nothing else comes
    in."""
    internet, server, client = Node(nodes), Node(nodes), Node(nodes)
    for command in (
        "ip link add lan0 type bridge",
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
    ):
        subprocess.run(command.split(), check=True)
    _veth(None, "wan0", internet, "eth0")
    for name, node in (("port1", server), ("port2", client)):
        _veth(None, name, node, "eth0")
        subprocess.run(f"ip link set {name} master lan0 up".split(), check=True)
    for address, device in (
        ("203.0.113.1/24", "wan0"), ("2001:db8:1::1/64", "wan0"), ("10.0.0.1/24", "lan0"), ("2001:db8:2::1/64", "lan0"),
    ):  # fmt: skip
        words = ["nodad"] if ":" in address else []
        subprocess.run(["ip", "address", "add", address, "dev", device, *words], check=True)
        subprocess.run(["ip", "link", "set", device, "up"], check=True)
    internet.up("eth0", "203.0.113.9/24", "2001:db8:1::9/64", gateway="2001:db8:1::1")
    server.up("eth0", "10.0.0.5/24", "2001:db8:2::5/64", gateway="10.0.0.1 2001:db8:2::1")
    client.up("eth0", "10.0.0.7/24", "2001:db8:2::7/64", gateway="10.0.0.1 2001:db8:2::1")
    _load(
        [*(ROOT / "etc" / "fwguard.d").glob("*.rules"), EXAMPLES / "router" / "60-router.rules"],
        tmp_path / "r",
        backend,
    )
    internet.serve(80)
    server.serve(443)
    server.serve(22)
    assert client.seen_as("203.0.113.9", 80) == "203.0.113.1"
    assert client.seen_as("2001:db8:1::9", 80) == "2001:db8:2::7"
    assert internet.seen_as("203.0.113.1", 8443) == "203.0.113.9"
    assert client.seen_as("203.0.113.1", 8443) == "10.0.0.1"
    internet.run("ip route add 10.0.0.0/24 via 203.0.113.1")
    for address, port in (("10.0.0.5", 443), ("10.0.0.5", 22), ("2001:db8:2::5", 443)):
        assert internet.seen_as(address, port, seconds=0.5) == "", address


DOCKER = """\
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
"""
"""What Docker loads for one container with a published port (docs.docker.com, "Docker with iptables")."""


def test_the_docker_example_limits_a_published_port(
    start_daemon: Callable[..., object], backend: str, nodes: ExitStack
) -> None:
    """Beside the shipped rules and those of Docker: the port is published for one network only, the container reaches
    others, and the rules of Docker stay."""
    outside, container = Node(nodes), Node(nodes)
    subprocess.run(["sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
    _veth(None, "eth0", outside, "eth0")
    _veth(None, "docker0", container, "eth0")
    for address, device in (("192.0.2.1/24", "eth0"), ("203.0.113.1/24", "eth0"), ("172.17.0.1/16", "docker0")):
        subprocess.run(["ip", "address", "add", address, "dev", device], check=True)
        subprocess.run(["ip", "link", "set", device, "up"], check=True)
    outside.up("eth0", "192.0.2.7/24", "203.0.113.9/24")
    container.up("eth0", "172.17.0.2/16", gateway="172.17.0.1")
    subprocess.run([f"iptables-{backend}-restore", "--noflush"], input=DOCKER, text=True, check=True)
    files = [*SHIPPED, EXAMPLES / "docker" / "60-docker.rules"]
    daemon = start_daemon({file.name: file.read_text(encoding="utf-8") for file in files})
    daemon.event("rules.applied")  # type: ignore[attr-defined]
    container.serve(80)
    outside.serve(80)
    assert outside.seen_as("192.0.2.1", 8080) == "192.0.2.7"
    assert outside.seen_as("203.0.113.1", 8080, seconds=0.5) == ""
    assert container.seen_as("203.0.113.9", 80) == "203.0.113.1"
    saved = subprocess.run([f"iptables-{backend}-save"], capture_output=True, text=True, check=True).stdout
    assert [line for line in DOCKER.splitlines() if line.startswith("-A") and line not in saved] == []
