"""From which place on a source is read."""

from __future__ import annotations

from fwguardd.denials.checkpoint import Checkpoint
from fwguardd.denials.sources import ReadPosition, SourceChoice

BOOT, ANOTHER_BOOT = "boot", "another boot"


def place(checkpoint: Checkpoint | None) -> ReadPosition:
    """Where to continue from a checkpoint, in this boot."""
    return ReadPosition(checkpoint, BOOT, 5)


def test_a_position_is_good_for_its_source_and_its_boot() -> None:
    """A number of the kernel log is no cursor of the journal, and neither means anything after a reboot."""
    here = place(Checkpoint(BOOT, "kmsg", "4711"))
    assert (here.position_in("kmsg"), here.position_in("journal")) == ("4711", None)
    assert place(Checkpoint(ANOTHER_BOOT, "kmsg", "4711")).position_in("kmsg") is None
    assert place(None).position_in("kmsg") is None


def test_only_another_boot_is_a_reboot() -> None:
    """After a reboot the whole log of the new boot is news; at a first start, and after a change of the source, it is
    not."""
    assert place(Checkpoint(ANOTHER_BOOT, "kmsg", "4711")).is_after_reboot
    assert not place(Checkpoint(BOOT, "nflog", None)).is_after_reboot
    assert not place(None).is_after_reboot


def test_the_settings_know_each_choice() -> None:
    """The names are those of the settings file."""
    assert [choice.value for choice in SourceChoice] == ["auto", "kmsg", "journal", "nflog"]
