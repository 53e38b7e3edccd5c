"""What the backbone that comes with the package is worth, on pictures that it was not trained on: beside the same
network with random weights, and beside what colours and positions alone tell.

Accuracy is the nearest centroid of five class tokens a class, mean and deviation over ten draws; masks are judged by
`evaluate masks`. Both on the outlined pictures of Caltech-101, of which no other copy is among those it learned from.
Pictures are squashed: in padded ones even random weights tell classes by the pictures' shape. Of colour and position: a
picture's mean colours (Lab) on a 4x4 grid tell its class, and how far a pixel's colour is from the picture's border,
nearer the middle more, is its mask, cut by Otsu.

Run: `MASKMILL_REFERENCE=… PYTHONPATH=tests .venv/bin/python tests/benchmarks/builtin_worth.py WORK [SIZE]`
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.color import rgb2lab
from skimage.filters import threshold_otsu

import maskmill
from benchmarks import masks_worth
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.pictures.palette import decode_label_map
from maskmill.stages.scores.intervals import counts_interval
from maskmill.stages.scores.iou import mean_iou, pixel_counts, stack_counts
from maskmill.stages.vision.builtin import BUILTIN

SET = "caltech-outlines"
WEIGHTS = {"built-in": "", "random": "random:0"}
METHODS = {
    "cst": ["--supports", "0", "--threshold", "otsu"],
    "cls-attention": ["--threshold", "otsu"],
    "ncut": [],
}
SHOTS, DRAWS = 5, 10
SIDE, GRID = 64, 4
CENTRED = 0.25  # deviation of the position's weight, of the picture's side


def accuracy(features_ND: np.ndarray, classes_N: np.ndarray) -> tuple[float, float]:
    """Per cent of the pictures outside the five of each class whose nearest centroid is their class's own."""
    found = []
    for draw in range(DRAWS):
        rng = np.random.default_rng([0, draw])
        shots = {label: rng.permutation(np.flatnonzero(classes_N == label))[:SHOTS] for label in np.unique(classes_N)}
        unit_ND = features_ND / np.linalg.norm(features_ND, axis=1, keepdims=True)
        centroids_CD = np.stack([unit_ND[own].mean(axis=0) for own in shots.values()])
        centroids_CD /= np.linalg.norm(centroids_CD, axis=1, keepdims=True)
        others = np.setdiff1d(np.arange(len(classes_N)), np.concatenate(list(shots.values())))
        nearest = np.array(list(shots))[(unit_ND[others] @ centroids_CD.T).argmax(axis=1)]
        found.append(100 * float((nearest == classes_N[others]).mean()))
    return float(np.mean(found)), float(np.std(found))


def coloured(ids: list[str]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Of each picture its colours on a grid, and its mask."""
    features, masks = [], []
    rows, columns = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE - 0.5
    weight = np.exp(-(rows**2 + columns**2) / (2 * CENTRED**2))
    for identifier in ids:
        with Image.open(masks_worth.REFERENCE / SET / "images" / f"{identifier}.jpg") as picture:
            size, small = picture.size, picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
        lab = rgb2lab(np.asarray(small))
        cells = lab.reshape(GRID, SIDE // GRID, GRID, SIDE // GRID, 3).mean(axis=(1, 3))
        features.append(cells.ravel())
        border = np.concatenate([lab[0], lab[-1], lab[:, 0], lab[:, -1]]).mean(axis=0)
        contrast = np.linalg.norm(lab - border, axis=-1) * weight
        large = np.asarray(Image.fromarray(contrast.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
        masks.append(large > threshold_otsu(contrast))
    features_ND = np.stack(features)
    return features_ND - features_ND.mean(axis=0), masks


def format_line(what: str, line: masks_worth.Scores) -> str:
    return f"| {SET} | {what} | {' | '.join(masks_worth.cell(line[key]) for key in ('miou', 'miou_foreground'))} |"


def study(work: Path, size: str) -> None:
    home = work / SET
    masks_worth.run("index", *masks_worth.INDEX[SET], "--out", home / "images")
    images = open_artifact(str(home / "images"), "images")
    table = images.rows(["id", "labels"])
    ids, classes_N = table.column("id").to_pylist(), np.array([own[0] for own in table.column("labels").to_pylist()])
    metrics: masks_worth.Scores = {}
    accuracies, rows = [], []
    for name, weights in WEIGHTS.items():
        tokens = home / f"tokens-{name}"
        fields = "keys,cls_query,cls_attention:last,tokens:last"
        asked = ["--backbone", BUILTIN, "--image-size", size, "--fit", "squash", "--fields", fields]
        masks_worth.run("extract", home / "images", *asked, "--weights", weights, "--out", tokens)
        cls_ND = np.asarray(maskmill.open_tokens(str(tokens)).read("tokens", ids))[:, -1, 0].astype(np.float64)
        accuracies.append(f"| {name} | {'{:.1f} ± {:.1f}'.format(*accuracy(cls_ND, classes_N))} |")
        for method, options in METHODS.items():
            maps, labels = (home / f"{kind}-{name}-{method}" for kind in ("maps", "labels"))
            rule = ["--method", method, *options]
            masks_worth.run("mask", tokens, *rule, "--out", maps)
            masks_worth.run("refine", maps, "--refiner", "none", "--out", labels)
            metrics = masks_worth.score_labels(SET, labels)
            rows.append(format_line(f"{name}, {method}", metrics["results"][0]))
    features_ND, masks = coloured(ids)
    accuracies.append(f"| colour and position | {'{:.1f} ± {:.1f}'.format(*accuracy(features_ND, classes_N))} |")
    truth = images.cells("mask", images.positions(ids))
    counts = []
    for png, mask, label in zip(truth, masks, classes_N, strict=True):
        assert png is not None
        counts.append(pixel_counts(decode_label_map(png), np.where(mask, np.uint8(label), np.uint8(0))))
    line = {}
    for key, with_background in (("miou", True), ("miou_foreground", False)):
        found = counts_interval(stack_counts(counts), partial(mean_iou, with_background=with_background))
        line[key] = {"estimate": found.estimate, "low": found.low, "high": found.high}
    rows.append(format_line("colour and position", line))
    rows += [format_line(floor["name"], floor) for floor in metrics["results"][-2:]]
    print(f"{size} px, of {len(ids)} pictures in {len(set(classes_N.tolist()))} classes\n")
    print("| class tokens | 5-shot nearest centroid, % |\n|---|---|", *accuracies, sep="\n")
    print("\n| set | masks | mIoU | mIoU without background |\n|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    study(Path(sys.argv[1]), [*sys.argv[2:], "96"][0])
