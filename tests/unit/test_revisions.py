"""What is kept in the state directory, which faults are found, and what a full or read-only disk does."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fwguardd.kernel.iptables import Backend
from fwguardd.ruleset.model import NOT_STATED, Chain, Family, Origin, Rule, RuleFile, Ruleset, Table
from fwguardd.store import durable
from fwguardd.store.durable import HostSystem
from fwguardd.store.model import Kept, NotKept, Unreadable, UnreadableNote
from fwguardd.store.revisions import (
    MOST_FAULTS,
    Expired,
    FaultKind,
    HeldFiles,
    PendingConfirmation,
    Revision,
    RevisionKind,
    RevisionStore,
    StoreError,
    Waiting,
    evaluate_pending,
)
from fwguardd.store.sealed_files import MOST_KEPT, seal
from tests.property.unreliable_disk import Tapped, stopping_at
from tests.waiting import LONGEST

ROOT = Path(__file__).resolve().parents[2]


def revision(number: int, *, text: str = "-p tcp -m tcp --dport 22 -j ACCEPT", padding: int = 0) -> Revision:
    """A revision with one rule in both families, its file made larger by so many bytes."""
    path = "/etc/fwguard.d/10-ssh.rules"
    rule = Rule(text, Origin(path, 3))
    rulesets = {
        family: Ruleset(family, {"filter": Table("filter", {"INPUT": Chain("INPUT", "DROP", (rule,))})})
        for family in Family
    }
    file = RuleFile(path, b"-P INPUT DROP\n" + b"#" * padding)
    by = "uid 0, pid 812 (fwguardctl)"
    return Revision(number, 1.7e9, "reload", by, Backend.NFT, "v1.8.9", "6.1.0", "ab12", (file,), rulesets)


def pending(number: int, back_to: int | None) -> PendingConfirmation:
    """A confirmation that is waited for until second 160 of a boot."""
    return PendingConfirmation(number, back_to, 160.0, "this-boot", 1.7e9, "ab12")


def numbers(store: RevisionStore) -> list[int]:
    """The numbers of the revisions that are kept."""
    return [summary.number for summary in store.summaries()]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory that is not there yet."""
    return tmp_path / "state"


def test_a_new_store_is_empty_and_its_owners_alone(state: Path) -> None:
    """Opening makes the directories with mode 0700, and there is nothing in force, waited for or held."""
    store = RevisionStore(state)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "revisions").stat().st_mode) == 0o700
    assert (store.newest(), store.pending(), store.held(), store.read_boot_revision()) == (NotKept(0), None, None, None)
    assert (store.summaries(), store.next_number(), store.take_faults()) == ((), 1, ())


def test_files_are_their_owners_alone(state: Path) -> None:
    """Only the owner can read what is written: rule files may contain confidential addresses and comments."""
    store = RevisionStore(state)
    store.record(revision(1))
    store.write_boot_files(revision(1))
    store.hold("ab12", "rolled back")
    files = [path for path in state.rglob("*") if path.is_file()]
    assert len(files) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_summary_tells_what_a_list_needs(state: Path) -> None:
    """A summary has who, when, why and how many, and reading it opens no file."""
    tapped = Tapped(HostSystem(), stopping_at(None))
    store = RevisionStore(state, system=tapped)
    store.record(revision(1))
    made = len(tapped.calls)
    (summary,) = store.summaries()
    assert (summary.number, summary.when, summary.cause) == (1, 1.7e9, "reload")
    assert (summary.by, summary.kind) == ("uid 0, pid 812 (fwguardctl)", RevisionKind.RULES)
    assert (summary.ipv4_rules, summary.ipv6_rules, summary.file_count) == (1, 1, 1)
    assert len(tapped.calls) == made


def test_the_oldest_revisions_go(state: Path) -> None:
    """Only so many revisions are kept, and the files of the others are gone."""
    store = RevisionStore(state, keep=3)
    for number in range(1, 7):
        store.record(revision(number))
    assert numbers(store) == numbers(RevisionStore(state)) == [4, 5, 6]
    assert sorted(path.name for path in (state / "revisions").iterdir()) == [
        "000004.json",
        "000005.json",
        "000006.json",
    ]


def test_what_is_needed_stays(state: Path) -> None:
    """Neither the newest goes, nor what the boot files hold, nor what a confirmation may go back to."""
    store = RevisionStore(state, keep=1)
    store.record(revision(1))
    store.write_boot_files(revision(1))
    store.record(revision(2))
    store.set_pending(pending(3, 2))
    for number in (3, 4, 5):
        store.record(revision(number))
    assert numbers(store) == [1, 2, 3, 5]
    store.clear_pending()
    store.write_boot_files(revision(5))
    store.record(revision(6))
    assert numbers(store) == [5, 6]


def test_a_number_is_never_used_again(state: Path) -> None:
    """Neither pruning, nor damage, nor a removed file makes a number free; and a revision is recorded once."""
    store = RevisionStore(state, keep=1)
    store.record(revision(1))
    store.record(revision(7))
    with pytest.raises(StoreError, match="revision 3 cannot be kept: the number was used before"):
        store.record(revision(3))
    with pytest.raises(StoreError, match="revision 7 cannot be kept: the number was used before"):
        store.record(replace(revision(7), cause="another"))
    store.record(revision(7))
    assert store.next_number() == 8
    (state / "revisions" / "000007.json").write_bytes(b"")
    assert RevisionStore(state).next_number() == 8
    assert RevisionStore(state).next_number() == 8


@pytest.mark.parametrize("what", ["boot files", "pending"])
def test_a_number_that_anything_tells_of_is_used(state: Path, what: str) -> None:
    """A number is used though no revision of it is kept, if the boot files or a pending confirmation name it."""
    store = RevisionStore(state)
    if what == "pending":
        store.set_pending(pending(9, None))
    else:
        store.write_boot_files(revision(9))
    assert RevisionStore(state).next_number() == 10


def test_the_number_of_a_revision_that_could_not_be_kept_is_used(state: Path) -> None:
    """A revision that is in force and could not be kept was named in events: the next one gets another number, and the
    same one can be recorded when the disk can be written again.
    """
    store = RevisionStore(state)
    store.record(revision(1))
    shutil.rmtree(state)
    state.write_text("in the way")
    with pytest.raises(StoreError):
        store.record(revision(2))
    assert store.next_number() == 3
    state.unlink()
    store.record(revision(2))
    assert numbers(RevisionStore(state)) == [2]


def test_a_store_that_is_removed_is_made_anew(state: Path) -> None:
    """The directory may be removed under a running daemon: what is recorded from then on is kept."""
    store = RevisionStore(state, keep=2)
    store.record(revision(1))
    shutil.rmtree(state)
    assert isinstance(store.newest(), Unreadable)
    assert "cannot be read" in store.take_faults()[0].message
    store.record(revision(2))
    store.record(revision(3))
    assert numbers(store) == numbers(RevisionStore(state)) == [2, 3]


def test_nothing_is_written_elsewhere(state: Path) -> None:
    """Every call that could change anything names the state directory or something in it."""
    tapped = Tapped(HostSystem(), stopping_at(None))
    store = RevisionStore(state, keep=1, system=tapped)
    for number in (1, 2):
        store.record(revision(number))
        store.write_boot_files(revision(number))
    store.set_pending(pending(2, 1))
    store.clear_pending()
    store.hold("ab12", "open")
    (state / "held.json").write_bytes(b"rot")
    RevisionStore(state, system=tapped)
    changing = {"rename", "unlink", "symlink", "mkdir", "rmdir"}
    touched = [path for call, path in tapped.calls if path is not None and (call in changing or path != state.parent)]
    assert {path for path in touched if path != state and state not in path.parents} == set()


def test_a_directory_that_others_can_write_is_refused(state: Path) -> None:
    """Whoever can write the state directory decides what the firewall becomes, so it is not even read."""
    for mode in (0o770, 0o702):
        state.mkdir(exist_ok=True)
        state.chmod(mode)
        with pytest.raises(
            StoreError,
            match=f"cannot be trusted: mode {mode:04o} lets others write to it; check its contents, then chmod 700",
        ):
            RevisionStore(state)


def test_a_file_in_place_of_the_directory_is_refused(state: Path) -> None:
    """A state directory that is not a directory is refused."""
    state.write_text("")
    with pytest.raises(StoreError, match="cannot be trusted: it is not a directory"):
        RevisionStore(state)


@pytest.mark.root
def test_a_directory_of_another_user_is_refused(state: Path) -> None:
    """A state directory that neither root nor the daemon's user owns is refused."""
    state.mkdir(mode=0o700)
    os.chown(state, 12345, 12345)
    with pytest.raises(StoreError, match="cannot be trusted: user 12345 owns it; check its contents, then chown root"):
        RevisionStore(state)


def test_leftovers_of_interrupted_writes_go(state: Path) -> None:
    """Temporary files and half-made boot directories are removed in silence; what is not ours stays."""
    store = RevisionStore(state)
    store.record(revision(1))
    store.write_boot_files(revision(1))
    ours = [state / "revisions/000002.json.tmp", state / "pending.json.tmp", state / "held.json.tmp"]
    for path in ours:
        path.write_bytes(b"half")
    (state / "boot.tmp").symlink_to("boot-000002-1")
    (state / "boot-000002-1").mkdir()
    (state / "boot-000002-1" / "ipv4.rules").write_bytes(b"half")
    others = [state / "lost+found", state / "revisions/000001.json.bak", state / "boot-notes", state / "x.tmp"]
    for path in others:
        path.write_bytes(b"of another program")
    store = RevisionStore(state)
    assert store.take_faults() == ()
    assert store.next_number() == 3
    kept = {"revisions", "boot", "boot-000001-1", "lost+found", "boot-notes", "x.tmp"}
    assert {path.name for path in state.iterdir()} == kept
    assert {path.name for path in (state / "revisions").iterdir()} == {"000001.json", "000001.json.bak"}


def test_a_revision_that_seems_huge_is_not_read_to_its_end(state: Path) -> None:
    """A damaged file system may show any size: what exceeds the stated one is damage, and 4 TiB are not read."""
    store = RevisionStore(state)
    store.record(revision(1))
    path = state / "revisions" / "000001.json"
    os.truncate(path, 1 << 42)
    (fault,) = RevisionStore(state).take_faults()
    assert fault.message.startswith(f"{path} is longer than what was written: its header states ")


def test_boot_files_that_seem_huge_are_not_read_to_their_end(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They state no size, so there is a limit for it."""
    store = RevisionStore(state)
    store.record(revision(1))
    store.write_boot_files(revision(1))
    monkeypatch.setattr(durable, "LARGEST_FILE", durable.CHUNK)
    os.truncate(state / "boot" / "ipv4.rules", 1 << 42)
    copy = store.boot_copy()
    assert isinstance(copy, Unreadable)
    assert copy.reason.endswith("ipv4.rules cannot be read: File too large")


def test_an_incomplete_revision_is_reported_and_moved_aside(state: Path) -> None:
    """The sentence names the file, how much of it is there, and where it is now; it stays the newest, unreadable."""
    store = RevisionStore(state)
    store.record(revision(1))
    store.record(revision(2))
    path = state / "revisions" / "000002.json"
    path.write_bytes(path.read_bytes()[:-100])
    store = RevisionStore(state)
    (fault,) = store.take_faults()
    assert fault.message.startswith(f"{path} is incomplete: ")
    assert fault.message.endswith(f"; moved to {state}/damaged/000001-000002.json")
    newest = store.newest()
    assert isinstance(newest, Unreadable)
    assert (newest.number, newest.reason) == (2, fault.message)
    assert isinstance(RevisionStore(state).newest(), Unreadable)
    assert store.take_faults() == ()
    assert (state / "damaged" / "000001-000002.json").exists()


def test_a_fault_that_is_found_after_the_opening_is_returned_once(state: Path) -> None:
    """A file that is damaged later is moved aside when it is read; `faults` goes on listing it."""
    store = RevisionStore(state)
    store.record(revision(1))
    store.record(revision(2))
    assert store.take_faults() == store.faults() == ()
    path = state / "revisions" / "000001.json"
    path.write_bytes(path.read_bytes()[:-1])
    assert isinstance(store.get(1), Unreadable)
    (fault,) = store.take_faults()
    assert fault.kind is FaultKind.DAMAGED
    assert str(path) in fault.message
    assert isinstance(store.get(1), Unreadable)
    assert store.take_faults() == ()
    assert store.faults() == (fault,)


def test_a_file_that_cannot_be_read_is_reported_once(state: Path) -> None:
    """It stays where it is, is tried again each time, and is reported as inaccessible the first time."""
    store = RevisionStore(state)
    store.record(revision(1))
    path = state / "revisions" / "000001.json"
    data = path.read_bytes()
    path.unlink()
    assert store.get(1) == store.get(1) == Unreadable(1, f"{path} cannot be read: No such file or directory")
    (fault,) = store.take_faults()
    assert (fault.kind, str(fault)) == (FaultKind.INACCESSIBLE, f"{path} cannot be read: No such file or directory")
    path.write_bytes(data)
    assert store.get(1) == Kept(revision(1))
    assert store.get(2) == NotKept(2)


def test_faults_that_are_listed_are_bounded(state: Path) -> None:
    """Of many faults the newest are listed, and each of them was returned once."""
    store = RevisionStore(state)
    for number in range(1, MOST_FAULTS + 3):
        store.record(revision(number))
        (state / "revisions" / f"{number:06d}.json").write_bytes(b"")
        assert isinstance(store.get(number), Unreadable)
    faults = store.take_faults()
    assert len(faults) == MOST_FAULTS + 2
    assert store.faults() == faults[2:]


def test_a_form_that_is_not_known_is_reported(state: Path) -> None:
    """A file of another version is set aside under its own words, and so is one with another one's name."""
    store = RevisionStore(state)
    store.record(revision(1))
    folder = state / "revisions"
    (folder / "000002.json").write_bytes(seal("fwguardd revision 2", b"{}\n"))
    (folder / "000003.json").write_bytes((folder / "000001.json").read_bytes())
    (folder / "000004.json").write_bytes(seal("fwguardd revision 1", b'{"number": "four"}\n'))
    (folder / "000005.json").write_bytes(b"")
    faults = RevisionStore(state).take_faults()
    wanted = [
        "000002.json is in a form that this version does not know ('fwguardd revision 2', not 'fwguardd revision 1')",
        "000003.json holds revision 1",
        "000004.json has a correct checksum, but cannot be understood: ",
        "000005.json is empty",
    ]
    assert len(faults) == len(wanted)
    for fault, part in zip(faults, wanted, strict=True):
        assert part in fault.message


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_is_not_a_regular_file_is_moved_aside(state: Path, kind: str) -> None:
    """A symlink, a FIFO or a directory by the name of a file is not followed and not waited for."""
    store = RevisionStore(state)
    store.record(revision(1))
    elsewhere = state.parent / "elsewhere"
    shutil.move(state / "revisions" / "000001.json", elsewhere)
    for path in (state / "revisions" / "000001.json", state / "pending.json"):
        if kind == "symlink":
            path.symlink_to(elsewhere)
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()
    store = RevisionStore(state)
    assert [("is not a regular file; moved to" in fault.message) for fault in store.take_faults()] == [True, True]
    assert isinstance(store.newest(), Unreadable)
    assert elsewhere.exists()
    store.set_pending(pending(2, None))
    assert RevisionStore(state).pending() == pending(2, None)


def test_damaged_files_are_kept_but_not_for_ever(state: Path) -> None:
    """The folder of damaged files is bounded; the oldest go, but never the highest number, which must stay known."""
    RevisionStore(state)
    (state / "revisions" / "000900.json").write_bytes(b"")
    RevisionStore(state)
    for number in range(1, MOST_KEPT + 11):
        (state / "revisions" / f"{number:06d}.json").write_bytes(b"")
        RevisionStore(state)
    names = sorted(path.name for path in (state / "damaged").iterdir())
    assert len(names) == MOST_KEPT
    assert names[0] == "000001-000900.json"
    assert names[1].endswith("-000012.json")
    assert RevisionStore(state).next_number() == 901


def test_a_damaged_note_is_not_taken_for_none(state: Path) -> None:
    """Damage to a small file is reported once, with its consequence, and each start knows that there was a note, until
    another one is written or it is removed."""
    store = RevisionStore(state)
    store.set_pending(pending(2, 1))
    store.hold("ab12", "not confirmed in time")
    for name in ("pending.json", "held.json"):
        data = (state / name).read_bytes()
        (state / name).write_bytes(data.replace(b"ab12", b"ab13"))
    store = RevisionStore(state)
    first, second = store.take_faults()
    assert "pending.json is not what was written: its checksum is wrong" in first.message
    assert first.message.endswith("whether a revision waits to be confirmed, and until when, is not known")
    assert second.message.endswith("which rule files were undone is not known")
    for opened in (store, RevisionStore(state)):
        for note in (opened.pending(), opened.held()):
            assert isinstance(note, UnreadableNote)
            assert note.lost
        assert opened.take_faults() == ()
    store.clear_pending()
    store.hold("cd34", "rolled back")
    again = RevisionStore(state)
    assert (again.pending(), again.held()) == (None, HeldFiles("cd34", "rolled back"))


def test_notes_replace_each_other(state: Path) -> None:
    """There is one pending confirmation and one held digest; clearing what is not there is not an error."""
    store = RevisionStore(state)
    store.clear_pending()
    store.release()
    store.set_pending(pending(2, 1))
    store.set_pending(pending(3, None))
    store.hold("a", "first")
    store.hold("b", "second")
    store = RevisionStore(state)
    assert store.pending() == pending(3, None)
    assert store.held() == HeldFiles("b", "second")


def test_a_confirmation_is_waited_for_until_its_deadline() -> None:
    """Until the deadline there are seconds left; at the deadline, after it, and in another boot there are none."""
    promise = pending(2, 1)
    assert evaluate_pending(promise, "this-boot", 100.0) == Waiting(60.0)
    assert evaluate_pending(promise, "this-boot", 160.0) == Expired("it was not confirmed in time")
    assert evaluate_pending(promise, "this-boot", 1e9) == Expired("it was not confirmed in time")
    restarted = Expired("the host was restarted before it was confirmed")
    assert evaluate_pending(promise, "next-boot", 100.0) == restarted


def test_boot_files_hold_complete_tables(state: Path) -> None:
    """The boot files are text for iptables-restore, and the manifest says whose they are, in lines for a shell."""
    store = RevisionStore(state)
    store.write_boot_files(replace(revision(41), kind=RevisionKind.OPEN, backend=Backend.LEGACY))
    text = "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
    assert (state / "boot" / "ipv4.rules").read_text() == (state / "boot" / "ipv6.rules").read_text() == text
    manifest = (state / "boot" / "manifest").read_text().splitlines()
    assert manifest[:4] == ["form=1", "revision=41", "kind=open", "backend=legacy"]
    assert [line[:7] + line[-12:] for line in manifest[4:6]] == ["sha256=  ipv4.rules", "sha256=  ipv6.rules"]
    assert manifest[6:8] == ['digest="ab12"', "when=1700000000.0"]
    assert manifest[8].startswith("seal=")
    assert store.read_boot_revision() == 41


def test_boot_files_remember_which_policies_are_not_stated(state: Path) -> None:
    """At boot such a policy is ACCEPT; a revision that is read from the boot files does not state it."""
    input_chain = Chain("INPUT", "DROP")
    table = Table("filter", {"INPUT": input_chain, "FORWARD": Chain("FORWARD", NOT_STATED)})
    rulesets = {Family.IPV4: Ruleset(Family.IPV4, {"filter": table})}
    store = RevisionStore(state)
    store.write_boot_files(replace(revision(7), rulesets=rulesets))
    text = (state / "boot" / "ipv4.rules").read_text()
    assert text.splitlines()[1:3] == [":INPUT DROP [0:0]", ":FORWARD ACCEPT [0:0]"]
    copy = store.boot_copy()
    assert isinstance(copy, Kept)
    assert copy.revision.rulesets == rulesets


def test_boot_files_replace_each_other(state: Path) -> None:
    """A new set takes the place of the old one, of the same revision too, and the old one is gone."""
    store = RevisionStore(state)
    for number in (1, 2, 2, 3):
        store.write_boot_files(revision(number))
        assert store.read_boot_revision() == number
        assert len([path for path in state.iterdir() if path.name.startswith("boot-")]) == 1


def test_a_family_without_rules_has_an_empty_boot_file(state: Path) -> None:
    """The manifest speaks of both families, though one may have nothing to load."""
    store = RevisionStore(state)
    only = {Family.IPV4: revision(1).rulesets[Family.IPV4]}
    store.write_boot_files(replace(revision(1), rulesets=only))
    assert (state / "boot" / "ipv6.rules").read_bytes() == b""
    assert store.read_boot_revision() == 1


def test_bytes_that_are_no_text_reach_the_boot_files_as_they_are(state: Path) -> None:
    """Rule text with bytes that are no UTF-8 is written as those bytes; text that no byte stands for is refused."""
    store = RevisionStore(state)
    store.write_boot_files(revision(1, text=os.fsdecode(b'-m comment --comment "\xff"')))
    assert b'--comment "\xff"\n' in (state / "boot" / "ipv4.rules").read_bytes()
    with pytest.raises(StoreError, match=r"the boot files of revision 2 cannot be written: its text holds '\\ud800'"):
        store.write_boot_files(revision(2, text="\ud800"))
    assert store.read_boot_revision() == 1


SHELL = """
cd "$1" || exit 1
[ "$(sed '$d' manifest | sha256sum)" = "$(sed -n '$s/^seal=//p' manifest)  -" ] || exit 2
sed -n 's/^sha256=//p' manifest | sha256sum -c --quiet || exit 3
sed -n 's/^revision=//p' manifest
"""


def test_a_shell_can_check_the_boot_files(state: Path) -> None:
    """sh, sed and sha256sum tell a whole set from one with any file changed, and read the revision's number."""
    RevisionStore(state).write_boot_files(revision(41))
    boot = state / "boot"

    def checked() -> tuple[int, str]:
        argv = ["/bin/sh", "-c", SHELL, "sh", str(boot)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LONGEST)
        return done.returncode, done.stdout.strip().rpartition("\n")[2]

    assert checked() == (0, "41")
    for name, code in (("manifest", 2), ("ipv4.rules", 3), ("ipv6.rules", 3)):
        good = (boot / name).read_bytes()
        (boot / name).write_bytes(good[:20] + bytes([good[20] ^ 1]) + good[21:])
        assert checked()[0] == code
        (boot / name).write_bytes(good)


@pytest.mark.parametrize("fault", ["missing file", "no set", "no symlink", "elsewhere", "changed"])
def test_damaged_boot_files_are_reported_and_moved_aside(state: Path, fault: str) -> None:
    """Any damage to the boot files is reported once, with its consequence; they can be written again."""
    store = RevisionStore(state)
    store.write_boot_files(revision(1))
    boot = state / "boot"
    if fault == "missing file":
        (boot / "ipv6.rules").unlink()
    elif fault == "changed":
        (boot / "ipv6.rules").write_bytes(b"")
    elif fault == "no set":
        shutil.rmtree(state / "boot-000001-1")
    else:
        boot.unlink()
        if fault == "elsewhere":
            boot.symlink_to("/etc")
        else:
            boot.mkdir()
    assert store.read_boot_revision() is None
    store = RevisionStore(state)
    (found,) = store.take_faults()
    assert found.kind is FaultKind.DAMAGED
    assert "boot" in found.message
    assert found.message.endswith("; until the boot files are written again, the next boot has no revision to load")
    assert RevisionStore(state).take_faults() == ()
    store.write_boot_files(revision(2))
    assert RevisionStore(state).read_boot_revision() == 2


def in_a_mount_namespace(script: str, state: Path) -> None:
    """Run Python in a mount namespace of its own, where it may mount. ``STATE`` is the path it is given."""
    preamble = "import sys, subprocess\nfrom pathlib import Path\nSTATE = Path(sys.argv[1])\n"
    preamble += "from fwguardd.store.model import Kept, Unreadable\n"
    preamble += "from fwguardd.store.revisions import RevisionStore, StoreError\n"
    preamble += "from tests.unit.test_revisions import revision, pending, numbers, fails\n"
    preamble += "def mount(*words): subprocess.run(['mount', *words], check=True)\n"
    namespace = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    argv = [*namespace, sys.executable, "-c", preamble + script, str(state)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONGEST)
    assert done.returncode == 0, done.stdout + done.stderr


def fails(word: str, act: object) -> None:
    """Assert that an act ends in a StoreError that names the fault."""
    assert callable(act)
    with pytest.raises(StoreError, match=word):
        act()


def test_a_full_disk_keeps_what_was_kept(state: Path) -> None:
    """On a file system of 64 KiB every write that finds no room says so and takes nothing away, and once there is
    room again it goes on.
    """
    state.mkdir(mode=0o700)
    script = """
mount("-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(STATE))
store = RevisionStore(STATE)
store.record(revision(1))
store.write_boot_files(revision(1))
store.set_pending(pending(2, 1))
fails("No space left on device; rollback, history", lambda: store.record(revision(2, padding=65536)))
with (STATE / "filler").open("wb", buffering=0) as filler:
    try:
        while filler.write(b"x" * 512):
            pass
    except OSError:
        pass
fails("No space left on device", lambda: store.record(revision(3)))
fails("No space left on device; the next boot loads what they held before", lambda: store.write_boot_files(revision(3)))
fails("No space left on device; after a restart nothing would undo", lambda: store.set_pending(pending(3, 1)))
fails("No space left on device", lambda: store.hold("ab12", "x"))
for seen in (store, RevisionStore(STATE)):
    assert seen.take_faults() == ()
    assert numbers(seen) == [1] and seen.newest() == Kept(revision(1))
    assert seen.read_boot_revision() == 1
    assert seen.pending() == pending(2, 1) and seen.held() is None
store.clear_pending()
(STATE / "filler").unlink()
store.record(revision(4))
store.write_boot_files(revision(4))
assert numbers(RevisionStore(STATE)) == [1, 4]
assert RevisionStore(STATE).read_boot_revision() == 4
"""
    in_a_mount_namespace(script, state)


def test_a_disk_that_cannot_be_written_can_be_read(state: Path) -> None:
    """On a read-only file system all that is kept can be read, damage is reported, and a failed write says what it
    means."""
    store = RevisionStore(state)
    store.record(revision(1))
    store.record(revision(2))
    store.write_boot_files(revision(1))
    store.hold("ab12", "rolled back")
    (state / "revisions" / "000002.json").write_bytes(b"rot")
    script = """
mount("--bind", str(STATE), str(STATE))
mount("-o", "remount,ro,bind", str(STATE))
store = RevisionStore(STATE)
(fault,) = store.take_faults()
assert "000002.json does not begin with a readable header" in fault.message
assert fault.message.endswith("it could not be moved aside: Read-only file system")
assert store.get(1) == Kept(revision(1)) and isinstance(store.newest(), Unreadable)
assert store.read_boot_revision() == 1 and store.held().digest == "ab12"
assert store.next_number() == 3
fails("Read-only file system; rollback, history", lambda: store.record(revision(3)))
fails("Read-only file system", lambda: store.write_boot_files(revision(3)))
fails("Read-only file system", lambda: store.set_pending(pending(3, 1)))
fails("Read-only file system; after a restart the rule files would still be held", store.release)
assert store.held().digest == "ab12" and store.pending() is None and numbers(store) == [1]
assert store.next_number() == 4
mount("-o", "remount,rw,bind", str(STATE))
store.record(revision(4))
assert numbers(RevisionStore(STATE)) == [1, 4]
"""
    in_a_mount_namespace(script, state)


def test_a_directory_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    """Without a place to keep anything the store opens empty, says so, and each write fails with place and fault."""
    store = RevisionStore(tmp_path / "no" / "state")
    (fault,) = store.take_faults()
    assert fault.message.startswith(f"nothing can be kept in {tmp_path}/no/state: ")
    assert fault.message.endswith("No such file or directory")
    assert store.newest() == NotKept(0)
    with pytest.raises(StoreError, match=f"revision 1 cannot be kept: {tmp_path}/no/state: No such file or directory"):
        store.record(revision(1))
    (tmp_path / "no").mkdir()
    store.record(revision(1))
    assert numbers(RevisionStore(tmp_path / "no" / "state")) == [1]


def test_touched_tables_are_known_after_a_restart(tmp_path: Path) -> None:
    """What a write is about to touch is on the disk before it is touched, and gone once the write is over."""
    tables = frozenset({(Family.IPV4, "raw"), (Family.IPV6, "nat")})
    store = RevisionStore(tmp_path / "state")
    assert store.touched() == frozenset()
    store.touch(tables)
    assert RevisionStore(tmp_path / "state").touched() == tables
    store.touch(frozenset())
    assert RevisionStore(tmp_path / "state").touched() == frozenset()


def test_damage_to_the_touched_tables_is_reported(tmp_path: Path) -> None:
    """A torn note is set aside, and what that means is said."""
    RevisionStore(tmp_path / "state").touch(frozenset({(Family.IPV4, "raw")}))
    path = tmp_path / "state" / "touched.json"
    path.write_bytes(path.read_bytes()[:-3])
    store = RevisionStore(tmp_path / "state")
    touched = store.touched()
    assert isinstance(touched, UnreadableNote)
    assert touched.lost
    assert any("touched.json" in fault.message for fault in store.take_faults())
