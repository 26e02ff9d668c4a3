"""`trainer`: from images to a bundle. Each command imports what it needs when it runs, so that help is instant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from calibration.cli_support import Cli, completion_help, emit, example, json_option, key_values, warn
from calibration.errors import InputError
from trainer.cli_compare import compare_command
from trainer.cli_distill import distill_command
from trainer.cli_import import import_group
from trainer.cli_labels import labels_group
from trainer.cli_support import check_run, complete_recipe, device_option, parse_recipe, parse_size, stages
from trainer.data.manifest import SPLITS, read_dataset

if TYPE_CHECKING:
    from calibration.conformal import EscapeBound
    from calibration.values import Interval
    from trainer.evaluate import SplitReport


@click.group(cls=Cli, epilog=completion_help("trainer"))
@click.version_option(package_name="lineguard")
def main() -> None:
    """From images to a bundle: import, train, export, release; and evaluate what came out."""


cli = main
main.add_command(import_group)
main.add_command(labels_group)
main.add_command(compare_command)
main.add_command(distill_command)


data_argument = click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
run_argument = click.argument("run", metavar="RUN", type=click.Path(path_type=Path))


@main.command("train", epilog=example("trainer train data --out run --recipe full --seed 1"))
@data_argument
@click.option("--out", "run", required=True, type=click.Path(path_type=Path), metavar="RUN", help="Folder to write.")
@click.option(
    "--recipe",
    callback=parse_recipe,
    shell_complete=complete_recipe,
    metavar="NAME",
    default="quick",
    show_default=True,
    help="quick: a head on frozen features, minutes. full: the network learns too; better. "
    "attention-crop: finds small defects in large frames and looks at them in full resolution. "
    "tiles: looks at all of a large frame in full resolution; slower. Or what `trainer compare` found best, by the "
    "name in its table: whole-anomaly, say.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of everything random.")
@click.option(
    "--size",
    callback=parse_size,
    metavar="HEIGHTxWIDTH",
    help="Input size in pixels. Default: chosen from the frames, with the reason in run.json.",
)
@click.option("--backbone", metavar="NAME", help="efficientnet-lite0 (default) or timm:NAME where timm is installed.")
@click.option(
    "--pooling",
    metavar="NAME",
    help="How maps become features: mean, mean+max, bilinear or parts. Default: as the recipe has it.",
)
@click.option("--anomaly", is_flag=True, help="Let the distance to good parts join the score, for defects never seen.")
@click.option("--places", is_flag=True, help="Let single places of a frame vote on its class too, for small defects.")
@device_option
@click.option("--resume", is_flag=True, help="Go on with the interrupted training that RUN holds.")
@click.option("--force", is_flag=True, help="Delete the training that RUN holds and start anew.")
@json_option
def train_command(
    data: Path,
    run: Path,
    recipe: str,
    seed: int,
    size: tuple[int, int] | None,
    backbone: str | None,
    pooling: str | None,
    anomaly: bool,
    places: bool,
    device: str,
    resume: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Train a classifier on DATA's train split, choose it by its val split, and score val and test."""
    dataset = read_dataset(data)
    from trainer.device import device_named

    chosen_device = device_named(device)
    check_run(run, resume, force)
    from trainer.compare.recipes import BY_NAME, input_size
    from trainer.evaluate import evaluate_run
    from trainer.recipes import RECIPES
    from trainer.train import train

    declared = BY_NAME.get(recipe)
    if declared is not None and declared.scale != 1 and size is None:
        size = input_size(declared, dataset.frame_heights, dataset.frame_widths)
    chosen: dict[str, Any] = {"backbone": backbone, "pooling": pooling, "anomaly": anomaly, "places": places}
    base = RECIPES[recipe] if declared is None else declared.recipe
    plan = replace(base, **{name: value for name, value in chosen.items() if value})
    with stages() as progress:
        result = train(dataset, run, plan, seed, size, progress, chosen_device)
    settings = result.settings
    figures = evaluate_run(run)
    facts = {
        "run": run,
        "recipe": recipe,
        "seed": seed,
        "input": {"height": settings.spec.height, "width": settings.spec.width, "channels": settings.spec.channels},
        "fit": settings.spec.fit,
        "size_reason": settings.size_reason,
        "epochs": result.epochs,
        "kept_epoch": result.kept_epoch,
        "val_score": result.val_score,
        "seconds": result.seconds,
        "temperature": figures.temperature,
        "val": figures.val,
        "test": figures.test,
    }
    emit(facts, as_json, _figures(f"{run}: {settings.size_reason}", figures.test))


@main.command("export", epilog=example("trainer export run --tensorrt sm_86,sm_89"))
@run_argument
@click.option(
    "--tensorrt",
    metavar="sm_86,...",
    default="",
    help="Also build TensorRT-RTX plans for these GPU generations; needs the extra 'rtx', but no GPU.",
)
@click.option(
    "--max-paired-escapes",
    type=click.IntRange(0),
    help="Validation defects that FP32 rejects and an INT8 model may pass. Default: 3 % of the defects, at least 2.",
)
@json_option
def export_command(run: Path, tensorrt: str, max_paired_escapes: int | None, as_json: bool) -> None:
    """Export RUN to ONNX: FP32, and INT8 for CPUs and for TensorRT, each measured against FP32.

    Refused when a layer fell out of INT8, or when an INT8 model passes defects that FP32 rejects.
    """
    from trainer.export import export_run

    generations = [name.strip() for name in tensorrt.split(",") if name.strip()]
    with stages() as progress:
        result = export_run(run, progress, generations, max_paired_escapes)
    table = Table(title=str(result.folder), title_justify="left", min_width=78)
    for column in ("model", "size", "INT8 layers", "verdicts as FP32", "paired escapes", "deviation"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, size in result.sizes.items():
        figures = result.parity.get(name)
        measured = ("-", "-", "-")
        if figures:
            escapes = f"{figures.paired_escapes} of {figures.defects}"
            measured = (f"{figures.agreement.value:.1%}", escapes, f"{figures.max_deviation:.3f}")
        table.add_row(name, f"{size / 2**20:.1f} MiB", str(result.convolutions.get(name, "-")), *measured)
    for plan in result.plans:
        table.add_row(f"trt {plan.capability}", f"{plan.size / 2**20:.1f} MiB", "-", "-", "-", "-")
    emit(result, as_json, table)


cost = click.FloatRange(min=0, min_open=True)


@main.command("release", epilog=example("trainer release run --out parts.lgb --cost-escape 50 --name 'Line 3'"))
@run_argument
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE.lgb", help="Bundle to write.")
@click.option("--name", help="Of the bundle, for screens. Default: the dataset's.")
@click.option("--cost-escape", type=cost, default=5.0, show_default=True, help="Of a defect that is passed.")
@click.option("--cost-overkill", type=cost, default=1.0, show_default=True, help="Of a good part that is scrapped.")
@click.option("--cost-review", type=cost, default=0.5, show_default=True, help="Of a part a person has to judge.")
@click.option(
    "--prevalence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of defects on the line, for thresholds and drift. Default: that of the validation images, with which "
    "thresholds err on the strict side, and drift shows where the line has fewer.",
)
@click.option(
    "--max-escape",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Bound on the expected escape rate, e.g. 0.01. Refused where validation has too few defects (99 for 1 %).",
)
@json_option
def release_command(
    run: Path,
    out: Path,
    name: str | None,
    cost_escape: float,
    cost_overkill: float,
    cost_review: float,
    prevalence: float | None,
    max_escape: float | None,
    as_json: bool,
) -> None:
    """Calibrate the exported RUN, choose its thresholds for the costs given, and write the bundle with its report.

    Temperature and thresholds are fitted on the validation split of the exported model's scores; every figure shown
    is measured on the test split.
    """
    if out.exists() and (out.is_dir() or not _is_bundle(out)):
        raise InputError(f"{out}: exists and is no bundle, so it is not overwritten; give another file with --out")
    from calibration.risk import Costs
    from trainer.release import MAIN, release_run

    costs = Costs(escape=cost_escape, overkill=cost_overkill, review=cost_review)
    with stages() as progress:
        result = release_run(run, out, costs, name, progress, prevalence, max_escape)
    for sentence in result.warnings:
        warn(sentence)
    rule, measured = result.fitted[MAIN].rule, result.measured[MAIN]
    rows = {
        "bundle": f"{result.bundle} ({result.size / 2**20:.1f} MiB, {result.goldens} goldens)",
        "report": str(run / "report.html"),
        "thresholds": f"OK up to {rule.ok_below:.3f}, DEFECT from {rule.defect_above:.3f}, between them UNSURE",
        "escape bound": _bound(result.fitted[MAIN].bound),
        "temperature": f"{rule.temperature:.3f}",
        "test parts (defects)": f"{measured.parts} ({measured.defects})",
    }
    for label, key in (("escape", "escape"), ("overkill", "overkill"), ("unsure", "unsure"), ("accuracy", "accuracy")):
        rows[label] = _share(measured.figures.get(key))
    if ece := measured.figures.get("ece"):
        rows["ECE"] = f"{ece:.3f}"
    emit(result, as_json, key_values(f"{result.name}: INT8 on CPU, test split", rows))


def _bound(bound: EscapeBound | None) -> str:
    return "none stated" if bound is None else f"{bound.alpha:.4g} in mean, from {bound.defects} validation defects"


def _is_bundle(path: Path) -> bool:
    from deploy.bundle import MAGIC

    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


@main.command("evaluate", epilog=example("trainer evaluate parts.lgb data --split test"))
@click.argument("model", metavar="RUN|FILE", type=click.Path(path_type=Path))
@data_argument
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True, help="Which part of DATA.")
@click.option(
    "--variant", type=click.Choice(["cpu", "trt"]), default="cpu", show_default=True, help="Which model of a bundle."
)
@json_option
def evaluate_command(model: Path, data: Path, split: str, variant: str, as_json: bool) -> None:
    """Judge DATA with a training run or a bundle and report accuracy, escapes, overkill and calibration.

    The temperature, and a bundle's thresholds, stay as they were fitted in training.
    """
    dataset = read_dataset(data)
    from trainer.assess import assess

    with stages() as progress:
        result = assess(model, dataset, split, variant, progress)
    if not result.same_dataset:
        warn(f"{model} was trained on another dataset; where {data} shares parts with it, these figures flatter")
    elif split != "test":
        warn(f"{model} was trained or chosen on the {split} split of {data}: these figures flatter")
    table = _figures(f"{result.model} on {result.split} of {result.dataset}", result.figures)
    if point := result.at_thresholds:
        table.add_section()
        table.add_row("escape at its thresholds", _share(point.escape))
        table.add_row("overkill at its thresholds", _share(point.overkill))
        table.add_row("unsure", _share(point.unsure))
    emit(result, as_json, table)


def _share(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval:.1%}"


def _figures(title: str, figures: SplitReport) -> Table:
    """The figures a quality engineer asks for first."""
    return key_values(
        title,
        {
            "parts (defects)": f"{figures.samples} ({figures.defects})",
            "accuracy": _share(figures.accuracy_interval),
            "AUROC of defects": f"{figures.auroc_interval:.3f}",
            "escape at 10 % overkill": _share(figures.escape_interval),
            "ECE": f"{figures.ece_interval:.3f} (before temperature {figures.ece_before:.3f})",
            "recall by class": ", ".join(f"{name} {value:.0%}" for name, value in figures.per_class.items()),
        },
    )


if __name__ == "__main__":
    main()
