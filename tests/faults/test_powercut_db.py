"""The power-cut campaign: the store survives it, and it finds every mutant."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from tests.faults import powercut_db
from tests.faults.disk import SECTOR, Disk, Operation


def test_the_store_survives_every_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short campaign: nothing corrupt, no acknowledged row lost, all mutants found, and the summary says so."""
    monkeypatch.setattr(powercut_db, "CUTS", 60)
    monkeypatch.setattr(powercut_db, "OPERATIONS", 30)
    out = tmp_path / "build" / "summary.json"
    shown = CliRunner().invoke(powercut_db.main, ["--cuts", "240", "--seed", "3", "--out", str(out), "--json"])
    assert shown.exit_code == 0, shown.output
    summary = json.loads(out.read_text())
    assert summary == json.loads(shown.stdout)
    assert (summary["cuts"], summary["corrupt"], summary["lost"]) == (240, 0, 0)
    assert summary["mutants_planted"] == summary["mutants_caught"] == len(powercut_db.MUTANTS)


@pytest.mark.parametrize("mutant", powercut_db.MUTANTS)
def test_a_mutant_fails_the_same_checks(mutant: str, tmp_path: Path) -> None:
    """Each way not to keep what was promised, alone."""
    work, after = tmp_path / "work", tmp_path / "after"
    work.mkdir()
    after.mkdir()
    random = Random(5)
    recording = powercut_db.record(random, powercut_db.MUTANTS[mutant], work)
    outcome = powercut_db.cut(recording, random, 100, after, lambda: None)
    assert outcome.corrupt or outcome.lost
    assert outcome.first


def test_a_campaign_with_a_mutant_in_the_product_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The exit code is 1 where the store itself does not wait for the disk."""
    monkeypatch.setattr(powercut_db, "CUTS", 60)
    monkeypatch.setattr(powercut_db, "MUTANTS", {})
    monkeypatch.setattr("appliance.store.PRAGMAS", ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = OFF"))
    words = ["--cuts", "60", "--out", str(tmp_path / "summary.json")]
    assert CliRunner().invoke(powercut_db.main, words).exit_code == 1


def test_the_disk_keeps_what_was_synced_and_tears_the_rest() -> None:
    """Sectors of an unsynced write are old or new, never mixed; synced ones are new; names need their directory."""
    disk, block = Disk({"a": b"o" * 4 * SECTOR}), 4 * SECTOR
    disk.play(Operation("write", "a", 0, b"n" * block))
    disk.play(Operation("open", "b"))
    seen = [disk.after_cut(Random(seed)) for seed in range(100)]
    pieces = [{files["a"][i : i + SECTOR] for i in range(0, block, SECTOR)} for files in seen]
    assert {len(kinds) for kinds in pieces} == {1, 2}
    assert set().union(*pieces) == {b"o" * SECTOR, b"n" * SECTOR}
    assert {"b" in files for files in seen} == {False, True}
    for operation in (Operation("sync", "a"), Operation("sync-names", "")):
        disk.play(operation)
    assert all(disk.after_cut(Random(seed)) == {"a": b"n" * block, "b": b""} for seed in range(20))
    disk.play(Operation("delete", "b"))
    disk.play(Operation("truncate", "a", SECTOR))
    after = [disk.after_cut(Random(seed)) for seed in range(50)]
    assert {"b" in files for files in after} == {False, True}
    assert {len(files["a"]) for files in after} == {SECTOR, block}
