"""`trainer labels agreement`: whether inspectors agree with themselves, with each other and with the truth."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from calibration.cli_support import emit, example, json_option
from calibration.errors import InputError
from trainer.cli_answers import answers_argument, classes_option, gold_option, read_answers
from trainer.cli_labelling import seed_option
from trainer.labels.agreement import ACCEPTABLE, GOOD_KAPPA, Agreement, Appraiser, agreement
from trainer.labels.answers import Answers


@click.command("agreement", epilog=example("trainer labels agreement answers.csv --gold truth.csv --ok good"))
@answers_argument
@classes_option
@click.option("--ok", metavar="CLASS", help="Class of the good parts, to tell misses and false alarms.")
@gold_option
@seed_option
@json_option
def agreement_command(
    answers: Path, classes: str | None, ok: str | None, gold: Path | None, seed: int, as_json: bool
) -> None:
    """Do inspectors agree with themselves, with each other, and with the truth (attribute agreement analysis)?

    Have each inspector judge the same parts two or three times, not knowing which they are; every answer is a row. A
    model may be one of the inspectors. Intervals: 95 %, of kappas by bootstrap over the items.
    """
    given = read_answers(answers, classes, gold)
    if ok is not None and ok not in given.classes:
        raise InputError(f"--ok {ok!r}: none of the classes {', '.join(given.classes)}")
    number = None if ok is None else given.classes.index(ok)
    found = agreement(given.rows, len(given.classes), truth=given.gold, ok=number, seed=seed)
    if found.together.same is None and not given.gold:
        raise InputError(
            f"{answers}: no item was answered twice, and of none the truth is known, so there is nothing to compare; "
            "have items judged again, or name the truth with --gold"
        )
    facts = {
        "items": len(given.items),
        "classes": given.classes,
        "gold": len(given.gold),
        "appraisers": dict(zip(given.annotators, map(asdict, found.appraisers), strict=True)),
        "together": asdict(found.together),
        "criteria": {"kappa": GOOD_KAPPA, **ACCEPTABLE},
    }
    emit(facts, as_json, _table(given, found))


def _table(given: Answers, found: Agreement) -> Table:
    title = (
        f"{len(given.items)} items, {len(given.rows)} answers, {len(given.gold)} with a known truth\n"
        f"kappa above {GOOD_KAPPA} is good; with truth and --ok each inspector is judged by AIAG's criteria"
    )
    table = Table(title=Text(title), title_justify="left", min_width=78, show_header=False)
    for name, one in (*zip(given.annotators, found.appraisers, strict=True), ("all together", found.together)):
        for what, figure in _figures(one).items():
            table.add_row(Text(name), what, figure)
            name = ""
        table.add_section()
    return table


def _figures(one: Appraiser) -> dict[str, str]:
    """What there is to say, in words."""
    shares = {"always the same answer": one.same, "always right": one.effectiveness}
    shares |= {"misses": one.miss, "false alarms": one.false_alarm}
    kappas = {"kappa": one.kappa, "kappa to the truth": one.kappa_truth}
    told = {what: format(share, ".1%") for what, share in shares.items() if share is not None}
    told |= {what: format(kappa, ".2f") for what, kappa in kappas.items() if kappa is not None}
    return {**told, "by AIAG's criteria": one.verdict} if one.verdict else told
