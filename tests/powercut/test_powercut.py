"""The power-cut campaign on a device root: the device survives it, and the campaign finds every mutant."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from deploy import files
from tests.powercut import campaign
from tests.powercut.disk import SECTOR, Disk, Operation, Recorder, Tree

SHORT = ("sent, cut, resumed", "push and roll back, enrolled", "staging killed, then again")


def test_a_device_survives_every_cut_and_every_mutant_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short campaign: nothing bricked, all mutants found, and the summary says so."""
    monkeypatch.setattr(campaign, "SCENES", [scene for scene in campaign.SCENES if scene.name in SHORT])
    out = tmp_path / "build" / "summary.json"
    words = ["--extra", "0", "--stride", "30", "--seed", "3", "--out", str(out), "--json"]
    shown = CliRunner().invoke(campaign.main, words)
    assert shown.exit_code == 0, shown.output
    summary = json.loads(out.read_text())
    assert summary == json.loads(shown.stdout)
    assert (summary["bricked"], summary["problem"]) == (0, "")
    assert summary["states"] == sum(summary["by_scene"].values()) >= 100
    assert all(summary["by_scene"].values())
    assert summary["mutants_planted"] == summary["mutants_caught"] == len(campaign.MUTANTS) >= 15


def test_a_campaign_fails_where_the_device_code_does_not_wait_for_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The exit code is 1, and the scene, the operation and the fault are named."""
    monkeypatch.setattr(campaign, "MUTANTS", {})
    monkeypatch.setattr(campaign, "SCENES", campaign.MUTANT_SCENES[:1])
    monkeypatch.setattr(files, "sync_directory", lambda _path: None)
    out = tmp_path / "summary.json"
    assert CliRunner().invoke(campaign.main, ["--extra", "0", "--out", str(out)]).exit_code == 1
    assert "push and roll back" in json.loads(out.read_text())["problem"]


def played(tree: Tree, *operations: Operation) -> Disk:
    """A disk that held `tree`, after these operations; file numbers are 1, 2, ... in the order of the tree."""
    disk = Disk(tree, [""].__add__(sorted(tree)).index)
    for operation in operations:
        disk.play(operation)
    return disk


def test_unsynced_writes_are_lost_kept_torn_or_zeros_and_synced_ones_stay() -> None:
    """By sectors; a sync settles it."""
    old, new = b"o" * 4 * SECTOR, b"n" * 4 * SECTOR
    write = Operation("write", "a", 1, 0, new)
    disk = played({"a": old}, write)
    assert disk.left("lost", "kept", Random(0)) == {"a": old}
    assert disk.left("kept", "lost", Random(0)) == {"a": new}
    torn = disk.left("torn", "kept", Random(0))["a"]
    assert torn is not None
    assert {torn[i : i + SECTOR] for i in range(0, len(torn), SECTOR)} == {old[:SECTOR], new[:SECTOR]}
    grown = played({"a": b""}, write).left("zeros", "kept", Random(0))
    assert grown == {"a": bytes(4 * SECTOR)}
    disk.play(Operation("sync", "a", 1))
    assert disk.left("lost", "lost", Random(0)) == {"a": new}


def test_a_rename_is_whole_or_not_there_and_durable_with_its_directory() -> None:
    """The old file under the new name, or the new one; never none, never both."""
    tree: Tree = {"a": b"old", "b": b"new"}
    disk = played(tree, Operation("rename", "b", 2, target="a"))
    assert {str(disk.left("kept", "any", Random(n))) for n in range(20)} == {str(tree), str({"a": b"new"})}
    disk.play(Operation("sync", "."))
    assert disk.left("lost", "lost", Random(0)) == {"a": b"new"}


def test_a_file_that_moves_to_another_directory_has_a_name_in_each_until_both_are_synced() -> None:
    """Synced where it came to, it is there, and where it was perhaps still; synced in both, there alone."""
    tree: Tree = {"d": None, "d/a": b"old", "e": None}
    moved = Operation("rename", "d/a", 2, target="e/a")
    disk = played(tree, moved, Operation("sync", "e"))
    both: Tree = {"d": None, "d/a": b"old", "e": None, "e/a": b"old"}
    alone: Tree = {"d": None, "e": None, "e/a": b"old"}
    assert {str(disk.left("kept", "any", Random(n))) for n in range(20)} == {str(both), str(alone)}
    disk.play(Operation("sync", "d"))
    assert disk.left("lost", "lost", Random(0)) == alone


def test_a_file_is_lost_with_the_directory_that_was_made_for_it() -> None:
    """Though its own directory was synced."""
    made = (Operation("mkdir", "d"), Operation("create", "d/f", 9), Operation("sync", "d"))
    assert played({}, *made).left("kept", "lost", Random(0)) == {}
    assert played({}, *made, Operation("sync", ".")).left("kept", "lost", Random(0)) == {"d": None, "d/f": b""}


def test_a_journal_keeps_the_first_names_and_never_a_later_one_alone() -> None:
    """In order, as a journaling file system commits them."""
    disk = played({}, Operation("create", "a", 1), Operation("create", "b", 2))
    seen = [set(disk.left("kept", "journal", Random(n))) for n in range(30)]
    assert {frozenset(names) for names in seen} == {frozenset(), frozenset("a"), frozenset("ab")}
    assert {"b"} in [set(disk.left("kept", "any", Random(n))) for n in range(30)]


def test_a_change_that_the_recorder_cannot_see_is_noticed(tmp_path: Path) -> None:
    """What was recorded, played, must be what is there: else the campaign would prove nothing."""
    recorder = Recorder(tmp_path)
    disk = Disk(recorder.known(), recorder.number)
    with recorder.recording():
        files.write_durably(tmp_path / "seen", b"1")
        os.symlink("seen", tmp_path / "unseen")
    for operation in recorder.log:
        disk.play(operation)
    assert disk.left("kept", "kept", Random(0)) == {"seen": b"1"} != recorder.known()
