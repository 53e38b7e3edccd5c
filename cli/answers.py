"""What the commands print: one line for people, JSON for programs."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ..manifests.counts import count_of
from ..pipeline.answers.estimate import Estimate
from ..pipeline.answers.lineage import LineageDifference
from ..pipeline.quantities import duration, size as size
from ..pipeline.running.run import Outcome
from ..stages.scores.verdict import FEWEST_PICTURES
from .tables import NOTHING, print_table

_LISTED = 8  # items shown of a setting that is a list


def show_outcome(outcome: Outcome, as_json: bool) -> int:
    if as_json:
        echo_json({**dataclasses.asdict(outcome), "at": outcome.at.uri})
        return outcome.exit_code
    units = f"{count_of(outcome.units_run, 'unit')} run" if outcome.rows else "done"
    done = "already done" if outcome.finished and not outcome.units_run else units
    skipped = f", {outcome.units_skipped} skipped" if outcome.units_skipped and outcome.units_run else ""
    made = counts_text(outcome.counts) if outcome.finished else "part done, finish with `maskmill finish`"
    text = "; ".join(part for part in (made, f"{done}{skipped} in {outcome.seconds:.1f} s") if part)
    click.echo(f"{outcome.kind}: {text} → {outcome.at}")
    show_warnings(outcome)
    return outcome.exit_code


def show_made(name: str, outcome: Outcome, as_json: bool) -> int:
    """Prints what a command has made, after its scores where there are any."""
    if outcome.kind == "metrics":
        return _show_metrics_outcome(name, outcome, as_json)
    if not as_json:
        show_training_scores(outcome)
    return show_outcome(outcome, as_json)


def show_training_scores(outcome: Outcome) -> None:
    """Prints the scores that a training ended with, if it has any."""
    if "held_out" in outcome.counts:
        _show_gain(outcome.counts["held_out"])
    if "judged" in outcome.counts:
        _show_scores(outcome.counts["judged"])


def _show_metrics_outcome(name: str, outcome: Outcome, as_json: bool) -> int:
    from ..manifests.artifact.artifact import open_artifact

    metrics = json.loads(open_artifact(outcome.at, "metrics").file("metrics.json"))
    show_warnings(outcome)
    if as_json:
        echo_json(metrics)
        return outcome.exit_code
    (show_few_shot if name == "fscs" else show_metrics)(metrics)
    done = "already done" if outcome.units_skipped else "done"
    click.echo(f"metrics: {done} in {outcome.seconds:.1f} s → {outcome.at}")
    return outcome.exit_code


def _show_gain(held_out: Mapping[str, Any]) -> None:
    if not held_out["pictures"]:
        return
    before, after, gain = (with_interval(held_out[name]) for name in ("before", "after", "difference"))
    pictures = count_of(held_out["pictures"], "unseen picture")
    click.echo(f"mIoU on {pictures}: before {before}, after {after}; difference {gain}")
    _mark_few(held_out["pictures"])


def _show_scores(judged: Mapping[str, Any]) -> None:
    if not judged.get("pictures"):
        return
    click.echo(f"{count_of(judged['pictures'], 'picture that was', 'pictures that were')} not learned from:")
    _mark_few(judged["pictures"])
    print_table(("", "mIoU", "mIoU without background"), score_rows(judged["lines"]), "  ")


def _mark_few(pictures: int) -> None:
    if pictures < FEWEST_PICTURES:
        click.echo(f"  fewer than {FEWEST_PICTURES} pictures: these scores tell nothing about others")


def show_warnings(outcome: Outcome) -> None:
    for notice in outcome.notices:
        logging.getLogger("maskmill").info(notice)
    for warning in outcome.warnings:
        click.echo(f"maskmill: warning: {warning}", err=True)


def show_estimate(estimate: Estimate, as_json: bool) -> int:
    if as_json:
        echo_json(dataclasses.asdict(estimate))
        return 0
    click.echo(f"{estimate.stage} would make {estimate.kind}, fingerprint {estimate.fingerprint[:12]}:")
    click.echo(
        f"  {count_of(estimate.rows, 'row')} in {count_of(estimate.units, 'unit')} of {estimate.unit_rows:,}, "
        f"{count_of(estimate.files, 'file')}"
    )
    for name, num_bytes in estimate.bytes_per_field.items():
        click.echo(f"  {name}: {size(num_bytes)}")
    if estimate.measured_rows:
        measured = f"{count_of(estimate.measured_rows, 'row')} took {estimate.measured_s:.1f} s"
        click.echo(f"  time: {duration(estimate.hours * 3600)} in one process on this machine ({measured})")
    if estimate.pair_bytes and estimate.measured_s:
        faster = f"--tokens if the disk reads more than {size(estimate.break_even)}/s, else --backbone"
        click.echo(
            f"  train --student cst would read {size(estimate.pair_bytes)} a pair; computing them takes "
            f"{estimate.pair_backbone_s:.2g} s and checking them {estimate.pair_reading_s:.2g} s; "
            f"faster: {faster if estimate.break_even < float('inf') else '--backbone, at any reading speed'}"
        )
    click.echo(f"  memory per worker, besides the model: {size(estimate.memory_per_worker_bytes)}")
    return 0


def show_metrics(metrics: Mapping[str, Any]) -> None:
    """Prints the scores of an evaluation, with the floors last to compare them with."""
    coverage = metrics["coverage"]
    without_class = ", without regard to class" if metrics["class_agnostic"] else ""
    click.echo(
        f"{count_of(coverage['rows'], 'picture')} with ground truth{without_class}: {coverage['kept']} kept, "
        f"{coverage['dropped']} dropped, {coverage['failed']} failed"
    )
    _mark_few(coverage["rows"])
    optional = [name for name in ("miou_truth_classes", "boundary_f") if name in metrics["results"][0]]
    names = ["miou", "miou_foreground", *optional]
    header = ["", *(name.replace("_", " ") for name in names)]
    print_table(header, score_rows(metrics["results"], names), "  ")
    sweep = metrics.get("threshold_sweep")
    if sweep and sweep["best"]:
        best = sweep["best"]
        click.echo(f"  best constant threshold, chosen on the ground truth: {best['threshold']} ({best['miou']:.3f})")
    if sweep and sweep.get("refine_options"):
        click.echo(f"  best threshold of each class, chosen on the ground truth: {sweep['refine_options']}")


def show_few_shot(metrics: Mapping[str, Any]) -> None:
    click.echo(
        f"{metrics['protocol']}, {metrics['way']}-way {metrics['shot']}-shot, masks of supports "
        f"{metrics['support_mask']}, void {metrics['void']}"
    )
    tables = {
        f"{fold['name']}: {count_of(fold['episodes'], 'episode')} on {count_of(fold['queries'], 'picture')} of "
        f"{count_of(len(fold['classes']), 'class', 'classes')}, {fold['present']:.0%} of them present": fold["results"]
        for fold in metrics["folds"]
    }
    if len(metrics["folds"]) > 1:
        tables[f"mean of {len(metrics['folds'])}"] = metrics["mean"]
    for title, lines in tables.items():
        click.echo(title)
        print_table(("", "exact ratio", "mIoU"), score_rows(lines, ("exact_ratio", "miou")), "  ")
    for name, score in metrics.get("published", {}).items():
        difference = NOTHING if score["difference"] is None else f"{score['difference']:+.3f}"
        click.echo(
            f"{name.replace('_', ' ')}: published {score['published']:.3f}, measured "
            f"{with_interval(score['measured'])}, difference {difference}"
        )


def score_rows(
    lines: Sequence[Mapping[str, Any]], names: Sequence[str] = ("miou", "miou_foreground")
) -> list[list[str]]:
    return [[line["name"], *(with_interval(line.get(name)) for name in names)] for line in lines]


def with_interval(score: Mapping[str, Any] | None, sign: str = "", between: str = "–") -> str:
    if score is None or score["estimate"] is None:
        return NOTHING
    if score["low"] is None or score["low"] == score["high"]:  # no resample defines the score, or all are alike
        return f"{score['estimate']:{sign}.3f} (–)"
    return f"{score['estimate']:{sign}.3f} ({score['low']:{sign}.3f}{between}{score['high']:{sign}.3f})"


def show_differences(differences: Sequence[LineageDifference]) -> None:
    """Prints the settings in which two artifacts and what they were made from differ."""
    if not differences:
        click.echo("made with the same settings, all inputs included")
        return
    rows = [(f"{change.of}: {change.name}", _value_text(change.a), _value_text(change.b)) for change in differences]
    print_table(("made with", "A", "B"), rows)


def _value_text(value: Any) -> str:
    """The value; only the first items of a long list."""
    if isinstance(value, list) and len(value) > _LISTED:
        return f"{', '.join(map(str, value[:_LISTED]))}, … ({len(value)} in all)"
    return NOTHING if value in (None, "", []) else str(value)


def counts_text(counts: Mapping[str, Any]) -> str:
    """One phrase: `20 rows, 18 ok, 2 failed (1 missing, 1 truncated)`; for an artifact without rows the facts that its
    stage recorded: `kind classifier, method cam`."""
    if "rows" not in counts:
        return ", ".join(f"{name} {value}" for name, value in counts.items() if isinstance(value, str | int | float))
    text = f"{count_of(counts['rows'], 'row')}, {counts['ok']} ok"
    if counts["failed"]:
        text += f", {counts['failed']} failed ({', '.join(f'{n} {why}' for why, n in counts['reasons'].items())})"
    if counts["upstream"]:
        text += f", {counts['upstream']} failed upstream"
    return text


def echo_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=1))
