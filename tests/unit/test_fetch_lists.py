"""Fetching lists: from a real https server and a real name server of this test, and what is refused."""

from __future__ import annotations

import http.server
import os
import socket
import ssl
import struct
import subprocess
import threading
from typing import TYPE_CHECKING, ClassVar

import pytest

from fwguardd import fetch_lists
from fwguardd.dns_lookup import LookupFailedError, look_up
from fwguardd.ruleset.list_sources import ListError, ListSource, holds_until, set_of
from fwguardd.ruleset.model import Family

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = ListSource("scanners", url="https://lists.example/x")


class Lists(http.server.BaseHTTPRequestHandler):
    """Answers with what a test has put there."""

    answers: ClassVar[dict[str, tuple[int, str]]] = {}

    def do_GET(self) -> None:
        """Answer with the status and the text; with 304 to who has the text already."""
        code, text = self.answers[self.path]
        if self.headers["If-Modified-Since"] and code == 200:
            code, text = 304, ""
        self.send_response(code)
        if code == 302:
            self.send_header("Location", text)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An https server whose certificate this process trusts."""
    folder = tmp_path_factory.mktemp("tls")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "cert")]
    subprocess.run([*command, *subject, *files], check=True, capture_output=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Lists)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["SSL_CERT_FILE"] = str(folder / "cert")
    yield f"https://localhost:{server.server_port}"
    del os.environ["SSL_CERT_FILE"]
    server.shutdown()
    server.server_close()


def _run(folder: Path, settings: str, *argv: str) -> int:
    (folder / "f.yaml").write_text(f"lists_dir: {folder}\nlists:\n{settings}")
    return fetch_lists.main(["--config", str(folder / "f.yaml"), *argv])


def test_a_list_is_fetched_and_kept(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What comes is a set file; nothing is fetched before it is due; whatever fails leaves what was fetched before."""
    Lists.answers["/a"] = 200, "192.0.2.0/24 ; SBL1\n# more\n2001:db8::/32\n"
    settings = f"  - {{name: scanners, url: '{address}/a'}}\n"
    assert _run(tmp_path, settings) == 0
    fetched = tmp_path / "scanners.set"
    assert fetched.read_text() == f"# {address}/a\n192.0.2.0/24\n\n2001:db8::/32\n"
    assert fetched.stat().st_mode & 0o777 == 0o644
    Lists.answers["/a"] = 500, ""
    assert _run(tmp_path, settings) == 0
    assert _run(tmp_path, settings, "--all") == 1
    os.utime(fetched, (0, 0))
    for answer in ((200, "<html>"), (200, "# nothing\n"), (302, "http://localhost/a"), (404, "")):
        Lists.answers["/b"] = answer
        (tmp_path / "other.set").unlink(missing_ok=True)
        assert _run(tmp_path, f"  - {{name: other, url: '{address}/b'}}\n") == 1
        assert not (tmp_path / "other.set").exists()
    told = capsys.readouterr().err
    for part in ("500", "line 1: '<html>' is neither", "it has no address", "which is not https", "404"):
        assert part in told
    Lists.answers["/a"] = 200, "the server says 304"
    assert _run(tmp_path, settings) == 0
    assert "192.0.2.0/24" in fetched.read_text()
    assert fetched.stat().st_mtime > 0


def test_the_text_of_a_list() -> None:
    """The first word of a line counts; the end of a TTL is in the first line."""
    file, data = set_of(SOURCE, "192.0.2.1,x\n".replace(",x", " x") + "2001:db8::1;y\n", 1_800_000_000.4)
    assert file.entries == {Family.IPV4: ["192.0.2.1"], Family.IPV6: ["2001:db8::1"]}
    assert holds_until(data.decode().splitlines()[0]) == 1_800_000_000
    assert holds_until("# https://lists.example/x") is None
    with pytest.raises(ListError, match=r"line 2: '1\.2\.3' is neither"):
        set_of(SOURCE, "192.0.2.1\n1.2.3\n")


@pytest.fixture
def name_server() -> Iterator[int]:
    """A name server on a port of 127.0.0.1: an address of each family with TTLs of 300 and 120 s, behind an alias."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                try:
                    asked, client = server.recvfrom(512)
                except OSError:
                    return
                server.sendto(_answer(asked), client)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def _answer(asked: bytes) -> bytes:
    kind = asked[-3]
    if b"missing" in asked:
        return asked[:2] + struct.pack(">HHHHH", 0x8183, 1, 0, 0, 0) + asked[12:]
    alias = b"\xc0\x0c" + struct.pack(">HHIH", 5, 1, 60, 2) + b"\xc0\x0c"
    address, ttl = bytes([192, 0, 2, 7]), 300
    if kind != 1:
        address, ttl = socket.inet_pton(socket.AF_INET6, "2001:db8::7"), 120
    record = b"\x01x\xc0\x0c" + struct.pack(">HHIH", kind, 1, ttl, len(address)) + address
    return asked[:2] + struct.pack(">HHHHH", 0x8180, 1, 2, 0, 0) + asked[12:] + alias + record


def test_names_are_looked_up_with_their_ttl(name_server: int) -> None:
    """Both families, the shorter TTL; a server that refuses is an error that names it."""
    assert look_up("api.example", ["127.0.0.1"], name_server) == (["192.0.2.7", "2001:db8::7"], 120)
    with pytest.raises(LookupFailedError, match=r"missing.example cannot be looked up: 127.0.0.1: .* code 3"):
        look_up("missing.example", ["127.0.0.1"], name_server)
