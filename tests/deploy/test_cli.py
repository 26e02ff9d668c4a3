"""The `deploy` command line: what it prints, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from deploy.cli import cli
from deploy.install import Device, read_state


def run(*arguments: object) -> Result:
    """Run `deploy` with arguments; standard output and standard error kept apart."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def output(*arguments: object) -> Any:
    """The JSON a command prints; it must succeed."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    """The one line on stderr of a command that must end with exit code 2."""
    result = run(*arguments)
    assert result.exit_code == 2, result.stdout
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    return result.stderr


def test_push_status_rollback(tmp_path: Path, bundles: list[Path], shas: list[str]) -> None:
    """The way of two bundles onto a device and back to the first."""
    root, device = tmp_path / "d", f"file:{tmp_path}/d"
    for path, digest in zip(bundles[:2], shas[:2], strict=True):
        pushed = output("push", path, device)
        assert pushed["sha256"] == digest
        assert pushed["devices"][0]["done"] == ["stage", "activate"]
        Device(root).confirm(digest)
    status = output("status", device)["devices"][0]
    assert (status["active"], status["error"], status["generation"]) == ("b", "", 6)
    assert status["slots"]["a"]["name"] == "one"
    assert status["slots"]["a"]["state"] == "confirmed"
    assert status["slots"]["b"]["intact"] is True
    assert len(status["history"]) == 5
    assert output("rollback", device, "--dry-run")["devices"][0]["done"] == []
    assert output("rollback", device, "--reason", "too many overkills")["devices"][0]["done"] == ["rollback"]
    assert read_state(root).b.reason == "too many overkills"


def test_tables_for_people(tmp_path: Path, bundles: list[Path], shas: list[str]) -> None:
    """Without --json the same facts as tables."""
    device = f"file:{tmp_path}/d"
    assert "would do" in run("push", bundles[0], device, "--dry-run").stdout
    assert "stage, activate" in run("push", bundles[0], device).stdout
    assert "nothing" in run("push", bundles[0], device).stdout
    text = run("status", device).stdout
    assert "trial (judges)" in text
    assert shas[0][:12] in text
    inspected = run("inspect", bundles[0]).stdout
    assert "ok, scratch (good: ok)" in inspected
    assert "100.00% of" in inspected


def test_history_can_be_left_out(tmp_path: Path, bundles: list[Path]) -> None:
    """--history 0."""
    run("push", bundles[0], f"file:{tmp_path}/d")
    assert output("status", f"file:{tmp_path}/d", "--history", 0)["devices"][0]["history"] == []


def test_inspect_shows_the_whole_manifest(bundles: list[Path], shas: list[str]) -> None:
    """Every file with its size, every number of the decision rule."""
    result = output("inspect", bundles[0])
    assert result["sha256"] == shas[0]
    assert result["manifest"]["variants"]["cpu"]["rule"]["ok_below"] == 0.3
    assert set(result["manifest"]["files"]) == set(result["sizes"]) - {"manifest.json"}


def test_a_bundle_with_a_flipped_byte_is_refused(tmp_path: Path, bundles: list[Path]) -> None:
    """By push and by inspect, naming the file and the remedy; no device is made."""
    bad = tmp_path / "bad.lgb"
    data = bytearray(bundles[0].read_bytes())
    data[30_000] ^= 0x10
    bad.write_bytes(bytes(data))
    for arguments in (("push", bad, f"file:{tmp_path}/d"), ("inspect", bad)):
        message = refused(*arguments)
        assert "bad.lgb: damaged" in message
        assert "copy or make the bundle again" in message
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("push", "none.lgb", "file:/nowhere"), "none.lgb: No such file or directory; give a bundle"),
        (("status", "file:/nowhere"), "not a device root (no state.json); `deploy push FILE file:/nowhere` makes one"),
        (("status", "tcp:1"), "unknown scheme 'tcp'"),
        (("rollback", "file:/nowhere"), "no earlier confirmed bundle to go back to"),
        (("inspect", "/"), "Is a directory"),
    ],
)
def test_unusable_input_is_one_line_and_exit_code_2(arguments: tuple[str, ...], message: str) -> None:
    """It names the file or device and the remedy."""
    assert message in refused(*arguments)


def test_a_push_to_where_nobody_may_write(bundles: list[Path]) -> None:
    """The device and the reason are named, the table is there all the same."""
    result = run("push", bundles[0], "file:/sys/lineguard")
    assert result.exit_code == 2
    assert "/sys/lineguard" in result.stderr
    assert "failed" in result.stdout


def test_one_failed_device_among_several(tmp_path: Path, bundles: list[Path]) -> None:
    """The JSON has both outcomes, the exit code is 2 and the error counts."""
    result = run("push", bundles[0], f"file:{tmp_path}/good", "file:/sys/lineguard", "--json")
    assert result.exit_code == 2
    assert [bool(device["error"]) for device in json.loads(result.stdout)["devices"]] == [False, True]
    assert result.stderr.startswith("error: 1 of 2 devices failed: file:/sys/lineguard: ")


def test_status_of_a_damaged_bundle(tmp_path: Path, bundles: list[Path]) -> None:
    """It is found, shown and named; the other device is shown as well."""
    for name in ("d1", "d2"):
        run("push", bundles[0], f"file:{tmp_path}/{name}")
    path = tmp_path / "d1/slots/a/bundle.lgb"
    path.write_bytes(path.read_bytes()[:-1])
    result = run("status", f"file:{tmp_path}/d1", f"file:{tmp_path}/d2", "file:/nowhere")
    assert result.exit_code == 2
    assert "DAMAGED" in result.stdout
    assert "trial (judges)" in result.stdout
    assert "2 of 3 devices failed" in result.stderr
    assert "slot a: its bundle is damaged or gone; push it again" in result.stderr


def test_names_are_text_and_not_markup(tmp_path: Path) -> None:
    """Brackets in a bundle's name are shown as they are."""
    from tests.support.tiny import tiny_bundle

    path = tiny_bundle(tmp_path / "b.lgb", name="[red]x[/red]")
    assert "[red]x[/red]" in run("push", path, f"file:{tmp_path}/d").stdout
    assert "[red]x[/red]" in run("status", f"file:{tmp_path}/d").stdout
    assert "[red]x[/red]" in run("inspect", path).stdout


def test_an_error_does_not_steer_the_terminal(tmp_path: Path) -> None:
    """Control characters in a file name are shown as blanks."""
    message = refused("inspect", tmp_path / "a\x1b]0;title\x07\nb.lgb")
    assert "\x1b" not in message
    assert "\x07" not in message


def test_every_command_has_help_with_an_example() -> None:
    """And --json."""
    assert "completion" in run("--help").stdout
    for name in (name for name, command in cli.commands.items() if not hasattr(command, "commands")):
        text = run(name, "--help").stdout
        assert f"deploy {name} " in text.split("Example:")[1]
        assert "--json" in text
