"""Lists of the kernel: one that a change interrupted may lack objects, and is never taken for whole."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from fwguardd.kernel.netlink import FAMILY_HEADER, HEADER, NLMSG_DONE, attribute
from fwguardd.kernel.nft_tables import NFT_MSG_GETTABLE, NFT_MSG_NEWTABLE, NFTA_TABLE_NAME, dump
from fwguardd.kernel.rtnetlink import RTM_GETADDR, dump_objects

NLM_F_DUMP_INTR = 0x10


class Answers:
    """Stands for the kernel: each request for a list is answered with the next of these flags and contents."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self._answers = list(answers)
        self.asked = 0

    def sendto(self, _data: bytes, _address: tuple[int, int]) -> None:
        """A request."""
        self.asked += 1

    def recv(self, _size: int) -> bytes:
        """The answer: one object, and the end."""
        flags, content = self._answers.pop(0)
        body = FAMILY_HEADER.pack(2, 0, 0) + content
        found = HEADER.pack(HEADER.size + len(body), NFT_MSG_NEWTABLE, flags, 1, 0) + body
        return found + HEADER.pack(HEADER.size + 4, NLMSG_DONE, flags, 1, 0) + bytes(4)


TABLE = attribute(NFTA_TABLE_NAME, b"filter\0")


def _listed(kernel: Any) -> list[tuple[int, dict[int, bytes]]]:
    return dump(kernel, NFT_MSG_GETTABLE, NFT_MSG_NEWTABLE, 2)


def test_a_list_that_was_interrupted_is_asked_for_again() -> None:
    """A whole one counts, however many came before it."""
    kernel = Answers((NLM_F_DUMP_INTR, TABLE), (NLM_F_DUMP_INTR, TABLE), (0, TABLE))
    assert _listed(kernel) == [(2, {NFTA_TABLE_NAME: b"filter\0"})]
    assert kernel.asked == 3


def test_a_list_that_is_never_whole_is_an_error() -> None:
    """Of tables that were not listed nothing is concluded: the error is one after which another look may succeed."""
    with pytest.raises(OSError, match="each time that they were listed") as raised:
        _listed(Answers(*[(NLM_F_DUMP_INTR, TABLE)] * 9))
    assert raised.value.errno == errno.EAGAIN


def _dumped(kernel: Any) -> list[bytes]:
    return dump_objects(kernel, RTM_GETADDR, b"")


def test_a_list_of_the_host_s_network_is_whole_or_an_error() -> None:
    """So it is with links, addresses, routes, sockets and connections, from which the packets of tests are made."""
    kernel = Answers((NLM_F_DUMP_INTR, b"part"), (0, b"rest"))
    assert _dumped(kernel) == [FAMILY_HEADER.pack(2, 0, 0) + b"rest"]
    with pytest.raises(OSError, match="each of the 5 times") as raised:
        _dumped(Answers(*[(NLM_F_DUMP_INTR, b"part")] * 9))
    assert raised.value.errno == errno.EAGAIN


def test_a_table_that_cannot_be_read_is_an_error() -> None:
    """What is listed and not understood is not left out."""
    with pytest.raises(OSError, match="cannot be read"):
        _listed(Answers((0, b"\x03\x00\x01\x00")))
