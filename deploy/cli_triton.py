"""`deploy triton`: a bundle for a Triton server."""

from __future__ import annotations

from pathlib import Path

import click

from calibration.cli_support import emit, example, json_option, key_values
from deploy.bundle import open_bundle
from deploy.triton import Runner, write_repository


@click.command("triton", epilog=example("deploy triton solar.lgb --out models"))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new directory for the repository.")
@click.option("--variant", type=click.Choice(["cpu", "trt"]), default="cpu", show_default=True, help="Which model.")
@click.option(
    "--runner",
    type=click.Choice(["onnxruntime", "python"]),
    default="onnxruntime",
    show_default=True,
    help="Triton's backend for the model; python where the server has no other.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be written; write nothing.")
@json_option
def triton_command(file: Path, out: Path, variant: str, runner: Runner, dry_run: bool, as_json: bool) -> None:
    """Write a bundle FILE as a Triton model repository, preprocessing and calibrated decision included.

    The server's Python needs numpy and cv2, with --runner python onnxruntime too. A server gives decisions; only the
    appliance gives a PASS.
    """
    made = write_repository(open_bundle(file), out, variant, dry_run, runner)
    rows = {"model to ask for": made.name, "files": len(made.files), "variant": made.variant}
    title = f"{'Would write' if dry_run else 'Wrote'} {out}"
    emit({"dry_run": dry_run, **vars(made)}, as_json, key_values(title, rows))
