"""`trainer labels issues` and `queries`: which images a person should look at, judged by a network."""

from __future__ import annotations

import csv
from pathlib import Path

import click
import numpy as np

from calibration.cli_support import emit, example, json_option, key_values, warn
from calibration.errors import InputError
from trainer.cli_support import parse_size, stages
from trainer.data.manifest import read_dataset
from trainer.data.names import listed
from trainer.labels.confident import RULES, find_label_issues, rank_issues
from trainer.labels.label_studio import LOCAL_FILES, Task, write_tasks
from trainer.labels.queries import STRATEGIES, select_queries

data_argument = click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
prefix_option = click.option(
    "--image-prefix", default=LOCAL_FILES, show_default=True, help="What Label Studio needs before an image's path."
)
seed_option = click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)


def check_new(folder: Path) -> None:
    """Raise InputError unless the folder is new or empty: what lies there may have been edited by hand."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is not empty; give a new folder with --out")


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}; give another folder with --out") from None


@click.command("issues", epilog=example("trainer labels issues data --out doubtful"))
@data_argument
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write.")
@click.option(
    "--rule", type=click.Choice(RULES), default="prune_by_noise_rate", show_default=True, help="Which to flag."
)
@click.option("--folds", type=click.IntRange(2, 50), default=5, show_default=True, help="Of the cross-validation.")
@click.option("--size", callback=parse_size, metavar="HEIGHTxWIDTH", help="Input size. Default: from the frames.")
@prefix_option
@seed_option
@json_option
def issues_command(
    data: Path,
    out: Path,
    rule: str,
    folds: int,
    size: tuple[int, int] | None,
    image_prefix: str,
    seed: int,
    as_json: bool,
) -> None:
    """Find labels of DATA that are probably wrong (confident learning), the worst first.

    Each image is judged by a model that has seen no image of its group. Writes DIR/issues.csv, DIR/issues.html with
    pictures, and DIR/tasks.json to label them again in Label Studio.
    """
    check_new(out)
    dataset = read_dataset(data)
    from calibration.images import read_image
    from trainer.crossval import out_of_fold_probabilities
    from trainer.issues_report import Issue, render, tasks, write_table

    with stages() as report:
        judged = out_of_fold_probabilities(dataset, folds, seed, size, report)
    p, labels = judged.probabilities, dataset.labels()
    flagged = {name: int(find_label_issues(labels, p, name).sum()) for name in RULES}
    found = []
    for row in rank_issues(labels, p, rule).tolist():
        item, other = dataset.items[row], int(np.where(np.arange(p.shape[1]) == labels[row], -1, p[row]).argmax())
        chances = (float(p[row, labels[row]]), float(p[row, other]))
        found.append(Issue(item.path, item.label, dataset.classes[other], *chances, item.group, item.split))
    make_folder(out)
    agreement = float((p.argmax(axis=1) == labels).mean())
    about = (
        f"{len(labels)} images judged in {folds} folds by models that had not seen their groups (agreement with the "
        f"labels {agreement:.1%}); rule {rule}. A doubtful label is one to look at, not one proven wrong."
    )
    write_table(out / "issues.csv", found)
    write_tasks(out / "tasks.json", tasks(found), image_prefix)
    page = render(dataset.name, about, found, lambda path: read_image(dataset.root / path, dataset.channels))
    (out / "issues.html").write_text(page, encoding="utf-8")
    facts = {
        "out": out,
        "images": len(labels),
        "rule": rule,
        "issues": found,
        "flagged_by_rule": flagged,
        "agreement": agreement,
        "folds": folds,
        "penalty": judged.penalty,
        "temperature": judged.temperature,
    }
    rows = {"images": len(labels), "agreement with the labels": f"{agreement:.1%}", f"issues ({rule})": len(found)}
    rows |= {f"  by {name}": count for name, count in flagged.items() if name != rule}
    rows |= {f"{n}. {i.item}": f"{i.label} -> {i.suggested}" for n, i in enumerate(found[:10], start=1)}
    emit(facts, as_json, key_values(f"{out}: labels of {data} to look at", rows))


@click.command("queries", epilog=example("trainer labels queries run unlabelled --count 50 --out next"))
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="OUT", help="Folder to write.")
@click.option("--count", required=True, type=click.IntRange(1), help="How many images to label.")
@click.option(
    "--strategy",
    type=click.Choice([*STRATEGIES, "k_centre"]),
    default="margin",
    show_default=True,
    help="What the run is least sure of; or, k_centre, what is least like the images it learned from.",
)
@click.option(
    "--audit-share",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.1,
    show_default=True,
    help="Share drawn by lot, at least one: what the run is wrongly sure of shows only there.",
)
@click.option("--rare", multiple=True, metavar="CLASS", help="A class that more examples are wanted of; repeatable.")
@click.option("--rare-share", type=click.FloatRange(0, 1), default=0.25, show_default=True, help="Share for --rare.")
@prefix_option
@seed_option
@json_option
def queries_command(
    run: Path,
    directory: Path,
    out: Path,
    count: int,
    strategy: str,
    audit_share: float,
    rare: tuple[str, ...],
    rare_share: float,
    image_prefix: str,
    seed: int,
    as_json: bool,
) -> None:
    """Choose which images of DIR to label next, for the trained RUN to learn most.

    Writes OUT/queries.csv and OUT/tasks.json for Label Studio. The tasks suggest nothing: whoever labels them is to
    judge for himself.
    """
    check_new(out)
    share = rare_share if rare else 0.0
    if share + audit_share > 1:
        raise InputError(f"--audit-share {audit_share} and --rare-share {share}: their sum must be at most 1")
    from trainer.query import rank_folder

    with stages() as report:
        ranked = rank_folder(run, directory, strategy, report)
    if ranked.skipped:
        warn(f"{len(ranked.skipped)} image(s) cannot be judged and are left out: {listed(sorted(ranked.skipped))}")
    if count > len(ranked.paths):
        raise InputError(f"--count {count}: {directory} holds {len(ranked.paths)} images that can be judged")
    unknown = [name for name in rare if name not in ranked.classes]
    if unknown:
        raise InputError(f"--rare {unknown[0]!r}: none of the run's classes {', '.join(ranked.classes)}")
    wanted = [ranked.classes.index(name) for name in rare]
    chosen = select_queries(
        ranked.order,
        count,
        probabilities=ranked.probabilities,
        rare=wanted,
        rare_share=share,
        audit_share=audit_share,
        seed=seed,
    )
    found = []
    for row, reason in zip(chosen.rows.tolist(), chosen.reasons, strict=True):
        best = int(ranked.probabilities[row].argmax())
        why = strategy if reason == "strategy" else reason
        probability = float(ranked.probabilities[row, best])
        found.append(
            {"item": ranked.paths[row], "reason": why, "predicted": ranked.classes[best], "probability": probability}
        )
    make_folder(out)
    with (out / "queries.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["item", "reason", "predicted", "probability"])
        writer.writeheader()
        writer.writerows({**entry, "probability": f"{entry['probability']:.4f}"} for entry in found)
    write_tasks(out / "tasks.json", [Task(ranked.paths[row]) for row in chosen.rows.tolist()], image_prefix)
    counts = {name: sum(entry["reason"] == name for entry in found) for name in (strategy, "rare", "audit")}
    facts = {"out": out, "images": len(ranked.paths), "queries": found, "counts": counts, "skipped": ranked.skipped}
    rows = {"images judged": len(ranked.paths), **{f"chosen by {name}": n for name, n in counts.items()}}
    emit(facts, as_json, key_values(f"{out}: {count} images of {directory} to label next", rows))
