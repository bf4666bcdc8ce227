"""The rules of a bed by their handles: which position each has in its chain, also after edits.

An edit is one transaction for both families. It names the generation at which the rules were read or last edited, and
the kernel refuses it at another one. Its answer has to say that just what was wanted was done: then the handles are
known without another look. Otherwise the bed is given up.
"""

from __future__ import annotations

import contextlib
import errno
from itertools import count
from typing import TYPE_CHECKING, Final

from fwguardd.kernel.bed_edits import change_of
from fwguardd.kernel.generations import GenerationNoticesError, current_generation
from fwguardd.kernel.netlink import NETLINK_NETFILTER, open_socket
from fwguardd.kernel.nft_batches import BatchOutcome, answers_to, handles_after, outcome_of, transaction
from fwguardd.kernel.rule_dumps import PROTOCOLS, chain_names, handles_in, listed_rules, open_rule_socket

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator, Sequence

    from fwguardd.kernel.bed_edits import EditDocument
    from fwguardd.kernel.nft_batches import ChainChange

    _Chain = tuple[int, bytes, bytes]

_TRIES: Final = 3
_NO_RULES: Final[Sequence[int]] = ()
_OTHERWISE: Final = "the rules in the bed are otherwise than they should be"


class BedHandles:
    """The handles of the rules of iptables in the network namespace of this process, where nobody else writes."""

    def __init__(self) -> None:
        """Raises OSError."""
        # They stay open: after a load the kernel lets close() wait until it has freed what was removed.
        self._reader, self._writer = open_rule_socket(), open_socket(NETLINK_NETFILTER)
        self._handles: dict[_Chain, array[int]] = {}
        self._positions: dict[_Chain, dict[int, int]] = {}
        self._generation: int | None = None

    def close(self) -> None:
        """Close the sockets."""
        self._reader.close()
        self._writer.close()

    def learn(self) -> None:
        """Read the handles of all rules. Raises OSError."""
        for _ in range(_TRIES):
            self._generation = _present()
            self._read()
            if self._generation == _present():
                return
        raise OSError(errno.EAGAIN, "the rules in the bed were changed each time that they were read")

    def _read(self) -> None:
        self._handles.clear()
        self._positions.clear()
        for number, protocol in PROTOCOLS.items():
            # Interruptions, which are empty messages, are seen by the generation.
            listed = handles_in(filter(None, listed_rules(self._reader, number)))
            for names, handles in listed.items():
                self._handles[protocol, *names] = handles

    def position(self, protocol: int, table: bytes, chain: bytes, handle: bytes) -> int:
        """The position of a rule in its chain, counted from 1; 0 if it is not known. Names are as in messages."""
        place = (protocol, table, chain)
        if place not in self._positions:
            self._positions[place] = dict(zip(self._handles.get(place, _NO_RULES), count(1), strict=False))
        return self._positions[place].get(int.from_bytes(handle, "big"), 0)

    def pass_over_commit(self) -> None:
        """Take note that this process has committed something that is not about rules of iptables."""
        if self._generation is not None:
            self._generation += 1

    def edit(self, documents: Sequence[EditDocument]) -> bool:
        """Edit chains; False where the kernel has refused that, and nothing was changed. Raises OSError where the rules
        are not those that the edits were made for, or it is not clear what they are now."""
        if self._generation is None:
            return False
        changes = list(self._changes(documents))
        answers = answers_to(self._writer, transaction(self._generation, changes))
        became = outcome_of(answers)
        if became is BatchOutcome.REFUSED:
            return False
        after = handles_after(answers, changes, self._generation + 1)
        if became is BatchOutcome.STALE or after is None:
            raise OSError(errno.ESTALE, _OTHERWISE)
        self._generation += 1
        for place, handles in after.items():
            chain = (int(PROTOCOLS[place.family.number]), *chain_names(place.table, place.chain))
            self._handles[chain] = handles
            self._positions.pop(chain, None)
        return True

    def _changes(self, documents: Sequence[EditDocument]) -> Iterator[ChainChange]:
        for document in documents:
            number, table, chain, _, _ = document
            place = (int(PROTOCOLS[number]), *chain_names(table, chain))
            change = change_of(document, self._handles.get(place, _NO_RULES))
            if change is None:
                raise OSError(errno.ESTALE, _OTHERWISE)
            yield change


def _present() -> int | None:
    """The present generation; None where the kernel does not say it. Raises OSError."""
    with contextlib.suppress(GenerationNoticesError):
        return current_generation()
    return None
