"""How the commands answer: one line for people, JSON for programs."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from ..pipeline.answers.estimate import Estimate
from ..pipeline.answers.lineage import LineageDifference
from ..pipeline.running.run import Outcome

_LISTED = 8  # of a setting that is a list


def show_outcome(outcome: Outcome, as_json: bool) -> int:
    """The one line at the end of a run."""
    if as_json:
        echo_json({**dataclasses.asdict(outcome), "at": outcome.at.uri})
        return outcome.exit_code
    units = f"{outcome.units_run} units run" if outcome.rows else "done"
    done = "already done" if outcome.finished and not outcome.units_run else units
    skipped = f", {outcome.units_skipped} skipped" if outcome.units_skipped and outcome.units_run else ""
    made = counts_text(outcome.counts) if outcome.finished else "part done, finish with `maskmill finish`"
    said = "; ".join(part for part in (made, f"{done}{skipped} in {outcome.seconds:.1f} s") if part)
    click.echo(f"{outcome.kind}: {said} → {outcome.at}")
    show_warnings(outcome)
    return outcome.exit_code


def show_made(name: str, outcome: Outcome, as_json: bool) -> int:
    """What a command has made: what it is worth first, where that is known."""
    if outcome.kind == "metrics":
        return _show_metrics_outcome(name, outcome, as_json)
    if not as_json and "held_out" in outcome.counts:
        _show_gain(outcome.counts["held_out"])
    if not as_json and "judged" in outcome.counts:
        _show_scores(outcome.counts["judged"])
    return show_outcome(outcome, as_json)


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
    before, after, by = (with_interval(held_out[name]) for name in ("before", "after", "difference"))
    click.echo(
        f"mIoU on {held_out['pictures']} pictures that were not seen: before {before}, after {after}; difference {by}"
    )


def _show_scores(judged: Mapping[str, Any]) -> None:
    if not judged.get("pictures"):
        return
    click.echo(f"{judged['pictures']} pictures that were not learned from:")
    width = max(len(line["name"]) for line in judged["lines"])
    click.echo(f"  {'':{width}}  {'mIoU':21}  mIoU without background")
    for line in judged["lines"]:
        miou, foreground = (with_interval(line[name]) for name in ("miou", "miou_foreground"))
        click.echo(f"  {line['name']:{width}}  {miou:21}  {foreground}")


def show_warnings(outcome: Outcome) -> None:
    for warning in outcome.warnings:
        click.echo(f"maskmill: warning: {warning}", err=True)


def show_estimate(found: Estimate, as_json: bool) -> int:
    """What a run would make."""
    if as_json:
        echo_json(dataclasses.asdict(found))
        return 0
    click.echo(f"{found.stage} would make {found.kind}, fingerprint {found.fingerprint[:12]}:")
    click.echo(f"  {found.rows:,} rows in {found.units:,} units of {found.unit_rows:,}, {found.files:,} files")
    for name, num_bytes in found.bytes_per_field.items():
        click.echo(f"  {name}: {size(num_bytes)}")
    if found.measured_rows:
        measured = f"{found.measured_rows} rows took {found.measured_s:.1f} s"
        click.echo(f"  time: {duration(found.hours * 3600)} in one process on this machine ({measured})")
    if found.pair_bytes and found.measured_s:
        faster = (
            f"stored tokens are the faster way where they come at more than {size(found.break_even)}/s, else "
            if found.break_even < float("inf")
            else "whatever they come at, the faster way is "
        )
        click.echo(
            f"  train --student cst would read {size(found.pair_bytes)} a pair, for which the backbone takes "
            f"{found.pair_backbone_s:.2g} s and checking them {found.pair_reading_s:.2g} s: {faster}--features online"
        )
    click.echo(f"  memory per worker, besides the model: {size(found.memory_per_worker_bytes)}")
    return 0


def show_metrics(metrics: Mapping[str, Any]) -> None:
    """The lines of an evaluation, the floors last: a number without its floor says nothing."""
    coverage = metrics["coverage"]
    without_class = ", without regard to class" if metrics["class_agnostic"] else ""
    click.echo(
        f"{coverage['rows']} pictures with ground truth{without_class}: {coverage['kept']} kept, "
        f"{coverage['dropped']} dropped, {coverage['failed']} failed"
    )
    width = max(len(line["name"]) for line in metrics["results"])
    names = ["miou", "miou_foreground", *(["boundary_f"] if "boundary_f" in metrics["results"][0] else [])]
    click.echo(f"  {'':{width}}  " + "  ".join(f"{name.replace('_', ' '):21}" for name in names))
    for line in metrics["results"]:
        click.echo(f"  {line['name']:{width}}  " + "  ".join(f"{with_interval(line.get(name)):21}" for name in names))
    sweep = metrics.get("threshold_sweep")
    if sweep and sweep["best"]:
        best = sweep["best"]
        click.echo(f"  best constant threshold, chosen on the ground truth: {best['threshold']} ({best['miou']:.3f})")


def show_few_shot(metrics: Mapping[str, Any]) -> None:
    """A table for each fold, the mean of several, and what was published."""
    click.echo(
        f"{metrics['protocol']}, {metrics['way']}-way {metrics['shot']}-shot, masks of supports "
        f"{metrics['support_mask']}, void {metrics['void']}"
    )
    tables = {
        f"{fold['name']}: {fold['episodes']} episodes on {fold['queries']} pictures of {len(fold['classes'])} classes, "
        f"of which {fold['present']:.0%} are there": fold["results"]
        for fold in metrics["folds"]
    }
    if len(metrics["folds"]) > 1:
        tables[f"mean of {len(metrics['folds'])}"] = metrics["mean"]
    for title, lines in tables.items():
        width = max(len(line["name"]) for line in lines)
        click.echo(f"{title}\n  {'':{width}}  {'exact ratio':21}  mIoU")
        for line in lines:
            ratio, miou = (with_interval(line[name]) for name in ("exact_ratio", "miou"))
            click.echo(f"  {line['name']:{width}}  {ratio:21}  {miou}")
    for name, found in metrics.get("published", {}).items():
        said = "–" if found["difference"] is None else f"{found['difference']:+.3f}"
        click.echo(
            f"{name.replace('_', ' ')}: published {found['published']:.3f}, measured "
            f"{with_interval(found['measured'])}, difference {said}"
        )


def with_interval(found: Mapping[str, Any] | None) -> str:
    if found is None or found["estimate"] is None:
        return "–"
    if found["low"] is None:  # no resample has what it is about
        return f"{found['estimate']:.3f} (–)"
    return f"{found['estimate']:.3f} ({found['low']:.3f}–{found['high']:.3f})"


def show_differences(differences: Sequence[LineageDifference]) -> None:
    """The settings in which two artifacts differ, all the way up."""
    if not differences:
        click.echo("made with the same settings, all the way up")
        return
    rows = [(f"{each.of}: {each.name}", _value_text(each.a), _value_text(each.b)) for each in differences]
    print_table(("made with", "A", "B"), rows, last_right=False)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], last_right: bool = True) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number and last_right else "left", overflow="fold")
    for row in rows:  # as Text: an id is no markup
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
    click.echo("")


def _value_text(value: Any) -> str:
    """A list of many, such as of ids, by its first."""
    if isinstance(value, list) and len(value) > _LISTED:
        return f"{', '.join(map(str, value[:_LISTED]))}, … ({len(value)} in all)"
    return "–" if value in (None, "", []) else str(value)


def counts_text(counts: Mapping[str, Any]) -> str:
    """Counts of rows as one phrase: `20 rows, 18 ok, 2 failed (1 missing, 1 truncated)`; of an artifact without rows
    what its stage says of it in a word: `kind classifier, method cam`."""
    if "rows" not in counts:
        return ", ".join(f"{name} {value}" for name, value in counts.items() if isinstance(value, str | int | float))
    text = f"{counts['rows']} rows, {counts['ok']} ok"
    if counts["failed"]:
        text += f", {counts['failed']} failed ({', '.join(f'{n} {why}' for why, n in counts['reasons'].items())})"
    if counts["upstream"]:
        text += f", {counts['upstream']} failed upstream"
    return text


def files_text(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    for unit, size_s in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size_s:
            return f"{seconds / size_s:.1f} {unit}"
    return f"{seconds:.0f} s"


def echo_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=1))


def size(num_bytes: float | int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"
