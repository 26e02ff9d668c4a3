"""`trainer labels`: consensus of annotators, doubtful labels, and what to label next."""

from __future__ import annotations

from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from calibration.cli_support import Cli, emit, example, json_option, key_values, progress, warn
from calibration.errors import InputError
from trainer.cli_agreement import agreement_command
from trainer.cli_answers import answers_argument, classes_option, gold_option, read_answers
from trainer.cli_labelling import (
    check_new,
    data_argument,
    issues_command,
    make_folder,
    prefix_option,
    queries_command,
    seed_option,
)
from trainer.data.manifest import MANIFEST, read_dataset, write_dataset
from trainer.data.names import listed
from trainer.labels.answers import Answers, write_answers_csv
from trainer.labels.label_studio import write_answers
from trainer.labels.relabel import relabelled, write_labels
from trainer.labels.vote import SMOOTHING, Vote, vote


@click.group("labels", cls=Cli)
def labels_group() -> None:
    """Find out which labels to trust, which to check, and which parts to label next.

    ANSWERS is a CSV with the columns item,annotator,label, or a Label Studio project exported as JSON. Items are paths
    as in a dataset's manifest.
    """


labels_group.add_command(agreement_command)
labels_group.add_command(issues_command)
labels_group.add_command(queries_command)


@labels_group.command("consensus", epilog=example("trainer labels consensus answers.csv --out agreed"))
@answers_argument
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder to write.")
@classes_option
@click.option("--ok", metavar="CLASS", help="Class of the good parts, to tell each annotator's escape and overkill.")
@gold_option
@click.option(
    "--method",
    type=click.Choice(["dawid-skene", "majority"]),
    default="dawid-skene",
    show_default=True,
    help="Weigh annotators by what they confuse, or count heads.",
)
@click.option(
    "--smoothing",
    type=click.FloatRange(0),
    default=SMOOTHING,
    show_default=True,
    help="Imagined answers per annotator and class, 80 % right; 0 trusts small counts as they are.",
)
@click.option("--starts", type=click.IntRange(1, 1000), default=1, show_default=True, help="EM starts; the best wins.")
@seed_option
@json_option
def consensus_command(
    answers: Path,
    out: Path,
    classes: str | None,
    ok: str | None,
    gold: Path | None,
    method: str,
    smoothing: float,
    starts: int,
    seed: int,
    as_json: bool,
) -> None:
    """Agree on one label per item, and show how reliable each annotator is.

    Writes DIR/labels.csv (least certain first; `trainer labels apply` trains on it) and DIR/consensus.json with each
    annotator's confusion matrix and its 95 % intervals.
    """
    check_new(out)
    given = read_answers(answers, classes, gold)
    for name in given.alone():
        warn(f"annotator {name!r} shares no item with anybody: nothing shows how reliable these answers are")
    with progress("intervals") as report:
        result = vote(given, method, smoothing, starts, seed, ok, report)
    make_folder(out)
    labels, posterior = result.consensus.labels, result.consensus.posterior
    write_labels(out / "labels.csv", given.items, given.classes, labels, posterior, result.consensus.ties)
    result.write(out / "consensus.json", given)
    emit({"out": out, **result.summary(given)}, as_json, _consensus_table(result, given, out))


def _consensus_table(result: Vote, given: Answers, out: Path) -> Table:
    summary = result.summary(given)
    title = (
        f"{out}: {summary['items']} items, {summary['answers']} answers; {summary['ties']} ties, "
        f"{summary['unlike_majority']} labels unlike the majority's"
    )
    table = Table(title=Text(title), title_justify="left", min_width=78)
    columns = {"name": "annotator", "answers": "answers", "right": "right", "escape": "escape", "overkill": "overkill"}
    columns |= {"weakest": "misses most", "called": "of which called"}
    rows = result.annotators(given)
    shown = [name for name in columns if any(getattr(row, name) for row in rows)]
    for name in shown:
        table.add_column(columns[name], justify="right" if name == "answers" else "left")
    for row in rows:
        # as they are: brackets in a name are no markup
        table.add_row(*(Text(str(getattr(row, name))) for name in shown))
    return table


@labels_group.command("apply", epilog=example("trainer labels apply data agreed/labels.csv --out data2"))
@data_argument
@click.argument("labels", metavar="LABELS.csv", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DATA2", help="Dataset to write.")
@json_option
def apply_command(data: Path, labels: Path, out: Path, as_json: bool) -> None:
    """Write a copy of the dataset DATA with the labels of LABELS.csv: a consensus, or columns item,label.

    The doubt that the consensus left is kept as soft labels. Groups and splits stay as they are.
    """
    check_new(out)
    dataset = read_dataset(data)
    result = relabelled(dataset, labels)
    if result.unknown:
        warn(f"{len(result.unknown)} item(s) of {labels} are not in {data}: {listed(list(result.unknown))}")
    written = write_dataset(result.dataset, out)
    left = len(dataset.items) - result.kept - len(result.changed)
    facts = {"data": out, "changed": result.changed, "confirmed": result.kept, "untouched": left}
    rows = {"labels changed": len(result.changed), "labels confirmed": result.kept, "labels not given": left}
    rows |= {f"  {name}": sum(item.label == name for item in written.items) for name in written.classes}
    emit({**facts, "unknown": result.unknown}, as_json, key_values(f"{out / MANIFEST}", rows))


@labels_group.command("convert", epilog=example("trainer labels convert export.json --out answers.csv"))
@answers_argument
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="FILE.csv or FILE.json.")
@classes_option
@prefix_option
@json_option
def convert_command(answers: Path, out: Path, classes: str | None, image_prefix: str, as_json: bool) -> None:
    """Turn answers from CSV into Label Studio's JSON, or the other way round; the ending of FILE says which."""
    given = read_answers(answers, classes)
    if out.suffix.lower() not in (".csv", ".json"):
        raise InputError(f"{out}: name a file that ends in .csv or .json with --out")
    if out.exists():
        raise InputError(f"{out}: exists already; name a new file with --out")
    make_folder(out.parent)
    if out.suffix.lower() == ".csv":
        write_answers_csv(out, given.named())
    else:
        write_answers(out, given.named(), image_prefix)
    facts = {"items": len(given.items), "annotators": len(given.annotators), "answers": len(given.rows)}
    emit({"out": out, **facts, "classes": given.classes}, as_json, key_values(str(out), facts))
