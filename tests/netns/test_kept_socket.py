"""The socket for short questions: each thread has one, in the network namespace that it is in."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest

from fwguardd.kernel.generations import current_generation
from fwguardd.kernel.kept_socket import kept_socket
from fwguardd.kernel.netlink import NETLINK_NETFILTER, open_socket
from fwguardd.threads import in_thread
from tests.netns.namespaces import fresh_namespace

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

opened = partial(open_socket, NETLINK_NETFILTER)


@pytest.fixture(autouse=True)
def _namespace() -> Iterator[None]:
    """A namespace of its own."""
    with fresh_namespace():
        yield


def used() -> socket.socket:
    """The socket of this thread."""
    with kept_socket(opened) as found:
        return found


def commit() -> None:
    """A change of the rules of the namespace."""
    subprocess.run(["iptables-nft", "-A", "INPUT", "-j", "ACCEPT"], check=True)


def test_a_thread_asks_through_one_socket() -> None:
    """It stays open, and another thread has another one."""
    first = used()
    assert first.fileno() >= 0
    assert used() is first
    assert in_thread(used).result() is not first


def test_the_answer_is_that_of_the_namespace_that_the_thread_is_in() -> None:
    """Also where the thread was in another one before."""
    commit()
    commit()
    before = current_generation()
    with fresh_namespace():
        here = current_generation()
        commit()
        assert current_generation() == here + 1
    assert current_generation() == before


def test_after_an_error_another_socket_is_opened() -> None:
    """A late answer to the question before would be taken for the one to the next."""
    with pytest.raises(TimeoutError), kept_socket(opened) as failed:
        raise TimeoutError
    assert used() is not failed


def test_a_question_within_another_has_a_socket_of_its_own() -> None:
    """Their answers are not mixed."""
    with kept_socket(opened) as outer, kept_socket(opened) as inner:
        assert outer is not inner


def test_a_child_process_opens_its_own() -> None:
    """The socket of its parent is not used by both."""
    kept = used()
    child = os.fork()
    if not child:
        os._exit(int(used() is kept))
    assert os.waitpid(child, 0)[1] == 0
