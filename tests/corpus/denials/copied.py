"""Packets as NFLOG hands them out, made from what a test wants to say."""

from __future__ import annotations

from fwguardd.kernel import nflog_message as nflog
from fwguardd.kernel.nflog_message import LoggedPacket


def copied(
    payload: bytes,
    *,
    prefix: bytes = b"iptables denied: ",
    family: int = 2,
    hook: int = 1,
    ethertype: int = 0x0800,
    seq: int | None = 0,
    devices: tuple[int | None, ...] = (),
    hardware: tuple[int, bytes] | None = None,
    vlan: tuple[int, int] | None = None,
    link_header: bytes = b"",
    mark: int | None = None,
    uid: int | None = None,
    gid: int | None = None,
) -> LoggedPacket:
    """A packet with these attributes. Devices are incoming, outgoing, port in, port out; hardware is the kind of the
    device and its header; a VLAN has a protocol and a tag."""
    found = {nflog.NFULA_PACKET_HDR: ethertype.to_bytes(2, "big") + bytes([hook, 0])}
    texts = {nflog.NFULA_PREFIX: prefix + b"\0", nflog.NFULA_PAYLOAD: payload, nflog.NFULA_L2HDR: link_header}
    found |= {kind: value for kind, value in texts.items() if value}
    places = dict(zip((4, 5, 6, 7), devices, strict=False))
    numbers = {nflog.NFULA_SEQ: seq, nflog.NFULA_MARK: mark, nflog.NFULA_UID: uid, nflog.NFULA_GID: gid, **places}
    found |= {kind: number.to_bytes(4, "big") for kind, number in numbers.items() if number is not None}
    if hardware is not None:
        found |= {
            nflog.NFULA_HWTYPE: hardware[0].to_bytes(2, "big"),
            nflog.NFULA_HWHEADER: hardware[1],
            nflog.NFULA_HWADDR: bytes(12),
        }
    if vlan is not None:
        found[nflog.NFULA_VLAN] = b"".join(
            b"\6\0" + kind.to_bytes(2, "little") + value.to_bytes(2, "big") + b"\0\0"
            for kind, value in zip((nflog.NFULA_VLAN_PROTO, nflog.NFULA_VLAN_TCI), vlan, strict=True)
        )
    return LoggedPacket(family, found)
