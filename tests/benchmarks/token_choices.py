"""What tokens may be left out or stored shorter: bytes a picture, against agreement with float32 tokens of all blocks.

Run: `MASKMILL_REFERENCE=… PYTHONPATH=tests .venv/bin/python tests/benchmarks/token_choices.py WORK` with the options
below. What WORK holds already is not made again.

Pictures are the outlined ones of Caltech. Every fourth class is judged, and CST's learner learns the others from ground
truth, always from float32 tokens. It answers the same episodes (one way, one shot, supports seen through their true
masks) from tokens of every dtype, and all answers are held against those of the learner of all blocks from float32.

all blocks      the same learner: what differs is the dtype
fewer blocks    the learner is another network, of as many channels as it has blocks × heads, learned with the same
                steps, seed and pairs; so what differs is the network too, and its floor is the next line
another seed    the learner of all blocks again, with other first weights and other pairs: how much two learners differ
                that nobody would tell apart

The student linear reads the last block alone: all its classes at once, on pictures that it has not learned from.

Probabilities are of the class being there, and those of pixels, on a grid of 32×32; their differences are means of
absolute ones, and beside that of pixels stands their correlation in the mean over episodes: a learner that is not
certain enough to paint anything agrees or differs all the same. Masks agree by the IoU of what the two paint, in the
mean over those episodes or pictures in which one of them paints something. mIoU and exact ratio are by ground truth,
and the same minus the reference's.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load

from benchmarks.few_shot_worth import REFERENCE, command
from maskmill.cli.answers import size
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.checkpoints import WEIGHTS, training_ids
from maskmill.manifests.artifact.tokens import array_names, open_tokens
from maskmill.manifests.published.schema import class_indices
from maskmill.stages.evaluate.answering import Answerer
from maskmill.stages.evaluate.episode_rows import collect_answers, episode_row, true_presence
from maskmill.stages.evaluate.folds import Fold, class_fold, classes_in_masks
from maskmill.stages.evaluate.learners import load_learner_checkpoint, refuse_other_features
from maskmill.stages.evaluate.support_masks import true_masks
from maskmill.stages.scores.few_shot import few_shot_scores
from maskmill.stages.scores.intervals import Interval
from maskmill.stages.scores.iou import mean_iou, pixel_counts, sum_counts
from maskmill.stages.scores.truth import GroundTruth
from maskmill.stages.students.episodes import Episode
from maskmill.stages.students.feature_names import ONE_BLOCK, SEVERAL
from maskmill.stages.students.features import Cached
from maskmill.stages.train.judging import predictions
from maskmill.stages.train.linear import make_classifier
from maskmill.stages.train.published import PublishedDataset

PICTURES = REFERENCE / "caltech-outlines"
FOLDS, GRID_PX = 4, 32
DTYPES = ("float32", "float16", "int8")


@dataclass(frozen=True)
class Study:
    work: Path
    extract: Sequence[str]
    steps: int
    batch: int
    episodes: int
    fold: int

    @cached_property
    def classes(self) -> list[str]:
        return sorted(each.name for each in (PICTURES / "images").iterdir())

    @property
    def judged(self) -> list[str]:
        return self.classes[self.fold :: FOLDS]

    @property
    def images(self) -> Path:
        return self.work / "images"

    @property
    def dataset(self) -> Path:
        return self.work / "dataset"

    def tokens(self, blocks: str, dtype: str) -> Path:
        return self.work / f"tokens-{blocks}-{dtype}"

    def named(self, what: str, *parts: object) -> Path:
        return self.work / "-".join(map(str, [what, *parts]))


@dataclass(frozen=True, slots=True)
class Answers:
    """Of every episode, or of every picture that a linear student is judged on."""

    probabilities: np.ndarray
    decisions: np.ndarray
    painted: Sequence[np.ndarray]  # 0, or what is there: a way, or a class
    miou: float
    exact_ratio: float
    pixels: np.ndarray  # of episodes, how probable the class is on a grid of them


# ------------------------------------------------------------------------------------------------ what is made once


def make(study: Study) -> int:
    """Pictures, their index, tokens of all blocks and a dataset; gives how many blocks there are."""
    command("index", "folder", PICTURES / "images", "--masks", PICTURES / "masks", "--out", study.images)
    make_tokens(study, "all", "float32", ("keys", "cls_query"))
    out = ["--images", study.images, "--out"]
    command("mask", study.tokens("all", "float32"), "--supports", "0", "--threshold", "otsu", *out, study.named("maps"))
    command("refine", study.named("maps"), *out, study.named("labels"))
    command("manifest", study.named("labels"), *out, study.dataset)
    return int(open_tokens(study.tokens("all", "float32")).backbone["depth"])


def make_tokens(study: Study, blocks: str, dtype: str, more: Sequence[str] = ()) -> None:
    fields = ",".join([*(f"{name}:{blocks}" for name in SEVERAL), *more])
    asked = [*study.extract, "--fit", "squash", "--dtype", dtype, "--fields", fields]
    command("extract", study.images, *asked, "--out", study.tokens(blocks, dtype))


def trained(study: Study, student: str, blocks: str, seed: int) -> Path:
    learned = [each for each in study.classes if each not in study.judged]
    of_cst = ["--supervision", "mask", "--classes", ",".join(learned), "--batch", study.batch, "--steps", study.steps]
    parts = (study.fold, study.steps, study.batch) if student == "cst" else ()
    out = study.named(student, blocks, seed, *parts)
    asked = [*(of_cst if student == "cst" else ()), "--images", study.images, "--seed", seed, "--out", out]
    command("train", study.dataset, "--student", student, "--tokens", study.tokens(blocks, "float32"), *asked)
    return out


def bytes_a_picture(tokens: Path, fields: Sequence[str]) -> float:
    """Of the files as they lie there."""
    artifact = open_artifact(str(tokens), "tokens")
    arrays = tuple(f"{name}.zarr/" for name in array_names(artifact, fields))
    files = (number for name, number in artifact.place.sizes().items() if name.startswith(arrays))
    return sum(files) / artifact.plan.num_rows


# ------------------------------------------------------------------------------------------------------ the answers


def of_pairs(study: Study, blocks: str, dtype: str, seed: int) -> Answers:
    def answer() -> Answers:
        checkpoint = open_artifact(str(trained(study, "cst", blocks, seed)), "checkpoint")
        learner, truth = load_learner_checkpoint(checkpoint), GroundTruth(open_artifact(str(study.images)), "--images")
        features = Cached(open_tokens(study.tokens(blocks, dtype)), SEVERAL)
        refuse_other_features(learner, features)
        fold = asked_fold(study, truth)
        masks = true_masks(truth, features.sight)
        answerer = Answerer(learner.learner.eval(), features, masks, False, torch.device("cpu"))
        found, pixels = [], []
        for episode in fold.episodes:
            rows, columns = truth.mask(episode.query).shape
            found.append(answerer.answer(episode, (rows, columns)))
            pixels.append(probable_pixels(answerer, episode))
        pairs = list(zip(fold.episodes, found, strict=True))
        kept = [episode_row(asked, each, truth.mask(asked.query), "background") for asked, each in pairs]
        scores = few_shot_scores(
            collect_answers(fold.episodes, kept, true_presence(fold.episodes, truth)), num_resamples=1
        )
        return Answers(
            np.array([each.probabilities[0] for each in found]),
            np.array([each.decisions[0] for each in found]),
            [each.painted_UV for each in found],
            estimated(scores.miou),
            estimated(scores.exact_ratio),
            np.stack(pixels),
        )

    parts = (blocks, dtype, seed, study.fold, study.steps, study.batch, study.episodes)
    return kept_answers(study.named("answers-cst", *parts), answer)


def estimated(score: Interval) -> float:
    return float("nan") if score.estimate is None else score.estimate


def probable_pixels(answerer: Answerer, episode: Episode) -> np.ndarray:
    query = answerer.features.read([episode.query], ["tokens"]).fields["tokens"]
    support = answerer.features.read(episode.supports[0], ["support_tokens"]).fields["support_tokens"]
    masks = answerer.masks(episode.supports[0], episode.classes[0], {})
    with torch.inference_mode():
        found: np.ndarray = answerer._answer_way(query, support, masks, (GRID_PX, GRID_PX))[1].numpy()
    return found


def asked_fold(study: Study, truth: GroundTruth) -> Fold:
    table = open_artifact(str(study.images)).plan.facts["classes"]
    judged = class_indices(study.judged, table, "the images")
    return class_fold("fold", judged, (), classes_in_masks(truth, list(truth.ids)), 1, 1, study.episodes)


def of_patches(study: Study, dtype: str, seed: int, other: int) -> Answers:
    """Of the student linear, on the pictures that neither it nor that of the other seed has learned from."""

    def answer() -> Answers:
        checkpoints = [
            open_artifact(str(trained(study, "linear", "last", each)), "checkpoint") for each in (seed, other)
        ]
        published, truth = (
            PublishedDataset(open_artifact(str(study.dataset))),
            GroundTruth(open_artifact(str(study.images))),
        )
        features = Cached(open_tokens(study.tokens("last", dtype)), [ONE_BLOCK])
        classifier = make_classifier(features.sight.width, published.num_classes, 0, seed)
        classifier.load_state_dict(load(checkpoints[0].file(WEIGHTS)))
        learned = frozenset[str]().union(*(training_ids(each, "labels") for each in checkpoints))
        ids = [each for each in published.ids if each in truth.ids and each not in learned]
        painted = [label_HW for _, label_HW in predictions(classifier, features, published, ids)]
        counts = [pixel_counts(truth.mask(each), label_HW) for each, label_HW in zip(ids, painted, strict=True)]
        miou = float(mean_iou(sum_counts(counts), with_background=True))
        return Answers(np.zeros(len(ids)), np.zeros(len(ids), bool), painted, miou, float("nan"), np.zeros(0))

    return kept_answers(study.named("answers-linear", dtype, seed, other), answer)


def kept_answers(at: Path, answer: Callable[[], Answers]) -> Answers:
    """One file, written as a whole."""
    file = at.with_name(f"{at.name}.npz")
    if not file.exists():
        found = answer()
        told = {"miou": found.miou, "exact_ratio": found.exact_ratio, "shapes": [each.shape for each in found.painted]}
        pixels = np.concatenate([each.ravel() for each in found.painted])
        with file.with_suffix(".part").open("wb") as stream:
            np.savez_compressed(
                stream,
                told=json.dumps(told),
                probabilities=found.probabilities,
                decisions=found.decisions,
                pixels=pixels,
                probable=found.pixels,
            )
        os.replace(file.with_suffix(".part"), file)
    with np.load(file) as held:
        told = json.loads(str(held["told"]))
        ends = np.cumsum([rows * columns for rows, columns in told["shapes"]])
        pieces = np.split(held["pixels"], ends[:-1])
        painted = [piece.reshape(shape) for piece, shape in zip(pieces, told["shapes"], strict=True)]
        return Answers(
            held["probabilities"], held["decisions"], painted, told["miou"], told["exact_ratio"], held["probable"]
        )


# -------------------------------------------------------------------------------------------------------- the tables


def mask_iou(found: Answers, reference: Answers) -> float:
    """Of what both paint alike over what either paints."""
    ious = []
    for one, other in zip(found.painted, reference.painted, strict=True):
        either = np.count_nonzero((one > 0) | (other > 0))
        if either:
            ious.append(np.count_nonzero((one > 0) & (one == other)) / either)
    return float(np.mean(ious)) if ious else float("nan")


def correlation(found: Answers, reference: Answers) -> float:
    pairs = zip(found.pixels, reference.pixels, strict=True)
    return float(np.mean([np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs]))


def pair_cells(found: Answers, reference: Answers) -> list[str]:
    return [
        f"{np.abs(found.probabilities - reference.probabilities).mean():.5f}",
        f"{np.mean(found.decisions == reference.decisions):.1%}",
        f"{np.abs(found.pixels - reference.pixels).mean():.5f}, {correlation(found, reference):.4f}",
        f"{mask_iou(found, reference):.4f}".replace("nan", "–"),  # where nothing is painted
        f"{found.miou:.4f} ({found.miou - reference.miou:+.4f})",
        f"{found.exact_ratio:.4f} ({found.exact_ratio - reference.exact_ratio:+.4f})",
    ]


def pair_lines(study: Study, depth: int, seeds: Sequence[int]) -> Iterator[Sequence[str]]:
    reference = of_pairs(study, "all", "float32", seeds[0])
    for name, blocks in choices(depth).items():
        for dtype in DTYPES:
            make_tokens(study, blocks, dtype)
            stored = bytes_a_picture(study.tokens(blocks, dtype), SEVERAL)
            found = of_pairs(study, blocks, dtype, seeds[0])
            yield [f"{name}, {dtype}", size(stored), *pair_cells(found, reference)]
    for seed in seeds[1:]:
        found = of_pairs(study, "all", "float32", seed)
        yield [f"floor: all {depth}, float32, seed {seed}", "", *pair_cells(found, reference)]


def choices(depth: int) -> dict[str, str]:
    """Name → blocks as `extract` is told them, without those that come twice."""
    found = {f"all {depth}": "all"}
    for count in sorted({depth // 2, 4, 1}, reverse=True):
        if count < depth:
            found.setdefault(f"last {count}", f"{depth - count}-{depth - 1}" if count > 1 else "last")
    return found


def patch_lines(study: Study, seeds: Sequence[int]) -> Iterator[Sequence[str]]:
    first = seeds[0]
    for dtype in DTYPES:
        stored = size(bytes_a_picture(study.tokens("last", dtype), ["tokens"]))
        found, reference = (of_patches(study, each, first, first) for each in (dtype, "float32"))
        yield [f"last, {dtype}", stored, *patch_cells(found, reference)]
    for seed in seeds[1:]:
        found, reference = of_patches(study, "float32", seed, first), of_patches(study, "float32", first, seed)
        yield [f"floor: last, float32, seed {seed}", "", *patch_cells(found, reference)]


def patch_cells(found: Answers, reference: Answers) -> list[str]:
    pairs = zip(found.painted, reference.painted, strict=True)
    equal = np.concatenate([(one == other).ravel() for one, other in pairs]).mean()
    worth = f"{found.miou:.4f} ({found.miou - reference.miou:+.4f})"
    return [str(len(found.painted)), f"{equal:.3%}", f"{mask_iou(found, reference):.4f}", worth]


def show(head: Sequence[str], lines: Iterator[Sequence[str]]) -> None:
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for line in lines:
        print(f"| {' | '.join(line)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Bytes of tokens against what they are worth.")
    parser.add_argument("work", type=Path)
    parser.add_argument("--backbone", default="vit_small_patch16_224")
    parser.add_argument("--weights", default="", help="as extract takes them")
    parser.add_argument("--size", type=int, default=160, help="pixels")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--fold", type=int, choices=range(FOLDS), default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="the first of the reference")
    asked = parser.parse_args()
    weights = ["--weights", asked.weights] if asked.weights else []
    extract = ["--backbone", asked.backbone, *weights, "--image-size", str(asked.size)]
    study = Study(asked.work, extract, asked.steps, asked.batch, asked.episodes, asked.fold)
    depth = make(study)
    print(f"{asked.backbone}, weights {asked.weights or 'of its own'}, {asked.size} pixels, {asked.steps} steps of")
    print(f"{asked.batch} pairs, {asked.episodes} episodes of {len(study.judged)} classes that were not learned")
    of_pair = [
        "cst reads",
        "bytes a picture",
        "probability differs by",
        "equal decisions",
        "pixels differ by",
        "IoU of masks",
        "mIoU",
    ]
    show([*of_pair, "exact ratio"], pair_lines(study, depth, asked.seeds))
    of_patch = ["linear reads", "bytes a picture", "pictures judged", "equal pixels", "IoU of masks", "mIoU"]
    show(of_patch, patch_lines(study, asked.seeds))


if __name__ == "__main__":
    main()
