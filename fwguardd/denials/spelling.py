"""How names and addresses are spelled: bytes as /dev/kmsg escapes them, IPv6 addresses as RFC 5952 compresses them.

This module refuses to unescape: everything printed about a denial stays printable ASCII.
"""

from __future__ import annotations

from typing import Final

_LONGEST_FIRST: Final = tuple(":" * count for count in range(9, 2, -1))
_MAPPED: Final = "0000:0000:0000:0000:0000:ffff:"


def kernel_spelling(raw: bytes) -> str:
    r"""Bytes as a record of /dev/kmsg spells them: `\xHH` below 0x20, from 0x7f, and for the backslash.

    Source: msg_add_ext_text() in kernel/printk/printk.c. Readers of other sources (the journal decodes the
    escapes, syslog files may hold either) bring their text into this spelling before they parse it.
    """
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\x{byte:02x}" for byte in raw)


def spelled_length(text: str) -> int:
    """How many bytes the kernel's spelling stands for."""
    return len(text) - 3 * text.count("\\x")


def compress_ipv6(full: str) -> str:
    """The kernel's eight groups of four hexadecimal digits, as RFC 5952 writes the address.

    IPv4-mapped addresses get a dotted end (section 5), as inet_ntop(3) prints them.
    """
    if full.startswith(_MAPPED):
        high, low = int(full[30:34], 16), int(full[35:39], 16)
        return f"::ffff:{high >> 8}.{high & 0xFF}.{low >> 8}.{low & 0xFF}"
    # Without its leading zeros a group of zeros is empty, so that n of them in a row are n + 1 colons.
    groups = f":{full}:".replace(":000", ":").replace(":00", ":").replace(":0", ":")
    if ":::" in groups:
        for colons in _LONGEST_FIRST:
            before, found, after = groups.partition(colons)
            if found:
                return f"{_with_zeros(before)[1:]}::{_with_zeros(after)[:-1]}"
    return _with_zeros(groups)[1:-1]


def _with_zeros(groups: str) -> str:
    """Empty groups written out. Twice, because neighbouring ones share a colon."""
    return groups.replace("::", ":0:").replace("::", ":0:") if "::" in groups else groups
