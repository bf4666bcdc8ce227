"""Events of the process connector as bytes, and the socket filter as instructions.

What only the kernel can do (sending them, refusing) is tested in tests/netns/test_changes_real.py.
"""

from __future__ import annotations

import errno
import struct
from typing import Literal

import pytest

from fwguardd.kernel.process_events import Exec, Fork, _refusal, filter_program, parse_event


def event(
    what: int, *numbers: int, byteorder: Literal["little", "big"] | None = None, index: int = 1, value: int = 1
) -> bytes:
    """A datagram with one event: struct nlmsghdr, struct cn_msg, struct proc_event with its union of 24 bytes."""
    order = {"little": "<", "big": ">", None: "="}[byteorder]
    body = struct.pack(f"{order}IIQ", what, 0, 123) + struct.pack(f"{order}{len(numbers)}I", *numbers).ljust(24, b"\0")
    message = struct.pack(f"{order}IIIIHH", index, value, 0, 0, len(body), 0) + body
    return struct.pack(f"{order}IHHII", 16 + len(message), 3, 0, 0, 0) + message


FORK, EXEC, EXIT = 1, 2, 0x80000000


def test_forks_and_execs_are_read() -> None:
    """A fork has the ids of the child and of the parent process, an exec that of its process."""
    assert parse_event(event(FORK, 40, 40, 50, 50)) == Fork(50, 40)
    assert parse_event(event(FORK, 41, 40, 50, 50)) == Fork(50, 40), "the parent is a process, not its thread"
    assert parse_event(event(EXEC, 50, 50)) == Exec(50)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        event(EXEC, 50, 50)[:-17],
        event(FORK, 40, 40, 51, 50),
        event(EXIT, 50, 50),
        event(0, 1),
        event(EXEC, 50, 50, index=3),
        event(EXEC, 50, 50, value=2),
    ],
)
def test_everything_else_is_skipped(data: bytes) -> None:
    """A message that is cut off, a new thread, another event, an answer, and a message of another connector."""
    assert parse_event(data) is None


def passes(program: bytes, data: bytes, byteorder: Literal["little", "big"]) -> bool:
    """Run the few instructions of classic BPF that the filter uses: loads are in big endian."""
    layout = {"little": "<HBBI", "big": ">HBBI"}[byteorder]
    instructions = list(struct.iter_unpack(layout, program))
    accumulator = register = position = 0
    while True:
        code, if_true, if_false, operand = instructions[position]
        position += 1
        match code:
            case 0x20:
                accumulator = int.from_bytes(data[operand : operand + 4], "big")
            case 0x07:
                register = accumulator
            case 0x15:
                position += if_true if accumulator == operand else if_false
            case 0x1D:
                position += if_true if accumulator == register else if_false
            case 0x06:
                return bool(operand)
            case _:
                raise AssertionError(hex(code))


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_the_filter_passes_processes_and_answers(byteorder: Literal["little", "big"]) -> None:
    """On machines of both byte orders: forks of processes, execs and answers pass, new threads and the rest do not."""
    program = filter_program(byteorder)
    wanted = [event(FORK, 41, 40, 50, 50, byteorder=byteorder), event(EXEC, 51, 50, byteorder=byteorder)]
    wanted.append(event(0, 0, byteorder=byteorder))
    dropped = [event(FORK, 40, 40, 51, 50, byteorder=byteorder), event(EXIT, 50, 50, byteorder=byteorder)]
    dropped += [event(1 << bit, 50, 50, 50, 50, byteorder=byteorder) for bit in range(2, 32)]
    assert all(passes(program, data, byteorder) for data in wanted)
    assert not any(passes(program, data, byteorder) for data in dropped)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EPERM, "needs CAP_NET_ADMIN"),
        (errno.ECONNREFUSED, "only in the initial network namespace"),
        (errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_a_refusal_names_the_reason(number: int, words: str) -> None:
    """The message says what is missing."""
    assert words in str(_refusal(number))
