"""What the boot loader did before there was a daemon: its report, as an event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd import events

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fwguardd.events import Emit

LARGEST_REPORT = 4096


def tell_boot_report(path: Path, emit: Emit) -> None:
    """Tell what the boot loader's report says; nothing where there is none."""
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_REPORT).decode("utf-8", "replace")
    except OSError:
        return
    said = parse_report(text)
    outcome = said.get("outcome", "")
    if outcome == "revision":
        message = f"at boot revision {said.get('revision')} was in force before the network"
    else:
        message = (
            f"at boot the {outcome or 'unknown'} set was put in force: {said.get('reason', 'no reason was given')}"
        )
    emit(events.BOOT_REPORT, message, outcome=outcome, revision=said.get("revision", ""), reason=said.get("reason", ""))


def parse_report(text: str) -> Mapping[str, str]:
    """``key=value`` lines; anything else is passed over."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: value for key, equals, value in pairs if equals and key.isidentifier()}
