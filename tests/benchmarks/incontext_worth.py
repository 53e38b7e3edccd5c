"""What a few masks a class are worth as supports of `incontext`, and as lessons of the enhancer: on the same pictures,
with the same drawn masks, three draws.

Run: `MASKMILL_REFERENCE=… PYTHONPATH=tests .venv/bin/python tests/benchmarks/incontext_worth.py WORK SET… -- EXTRACT…`
with the options of `extract`; WORK/SET/images and tokens of an earlier run may be linked there. What WORK holds already
is not made again.
"""

import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from benchmarks.masks_worth import INDEX, cell, count_pixels, run
from maskmill.stages.scores.intervals import counts_interval, difference_interval
from maskmill.stages.scores.iou import Counts, mean_iou, stack_counts

MASKS, SEEDS = (1, 5), (0, 1, 2)


def make_labels(home: Path, masks: int, seed: int) -> Mapping[str, Path]:
    """Label maps without a refiner, by how they were made; the first uses no masks."""
    drawn = ["--gt-per-class", masks, "--seed", seed]
    name = f"{masks}-{seed}"
    run("fit", home / "tokens", "--method", "incontext", *drawn, "--out", home / f"supports-{name}")
    model = ["--model", home / f"supports-{name}"]
    run("mask", home / "tokens", "--method", "incontext", *model, "--out", home / f"incontext-maps-{name}")
    run("enhance", "fit", home / "maps", *drawn, "--out", home / f"enhancer-{name}")
    run("enhance", "apply", home / "maps", home / f"enhancer-{name}", "--out", home / f"enhanced-maps-{name}")
    maps = {"cst": "maps", "cst, enhanced": f"enhanced-maps-{name}", "incontext": f"incontext-maps-{name}"}
    for each in maps.values():
        run("refine", home / each, "--refiner", "none", "--out", home / f"{each}-labels")
    return {what: home / f"{each}-labels" for what, each in maps.items()}


def lines(home: Path, extract: list[str]) -> Iterator[str]:
    run("index", *INDEX[home.name], "--out", home / "images")
    run("extract", home / "images", *extract, "--out", home / "tokens")
    run("mask", home / "tokens", "--supports", "8", "--per-head", "--out", home / "maps")
    for masks in MASKS:
        for seed in SEEDS:
            counts = {
                what: count_pixels(home / "images", labels) for what, labels in make_labels(home, masks, seed).items()
            }
            ids = sorted(set.intersection(*(set(each) for each in counts.values())))
            scored = {what: [each[identifier] for identifier in ids] for what, each in counts.items()}
            yield f"| {home.name} | {masks} | {seed} | {len(ids)} | {' | '.join(cells(scored))} |"


def cells(scored: Mapping[str, list[Counts]]) -> Iterator[str]:
    miou = partial(mean_iou, with_background=True)
    for counts in scored.values():
        yield cell(counts_interval(stack_counts(counts), miou).as_json())
    yield cell(difference_interval(scored["cst, enhanced"], scored["incontext"], miou).as_json(), "+.3f")


def main(work: Path, sets: list[str], extract: list[str]) -> None:
    print("| set | masks a class | draw | pictures | cst | cst, enhanced | incontext | incontext less enhanced |")
    print(f"|{'---|' * 8}", flush=True)
    for name in sets:
        for line in lines(work / name, extract):
            print(line, flush=True)


if __name__ == "__main__":
    between = sys.argv.index("--")
    main(Path(sys.argv[1]), sys.argv[2:between], sys.argv[between + 1 :])
