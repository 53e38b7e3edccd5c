"""Fits enhancers on the maps of heads and a few ground-truth masks, and writes a checkpoint for `enhance apply`."""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from torch import nn

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.checkpoints import SEEN, WEIGHTS, SeenByNetwork, networks_seen_json
from ...manifests.artifact.facts import MapsFacts
from ...manifests.artifact.underway import Underway
from ...manifests.counts import count_of
from ...manifests.errors import ConfigError, InputError
from ...manifests.files.sealed import Json
from ...manifests.published.schema import class_indices, class_names
from ..learning.loop import Course, train
from ..learning.mask_draws import MaskDraw, draw_masked_pictures
from ..maps.one_thread import one_thread
from ..scores.truth import GroundTruth, refuse_other_classes
from ..stage import Configs, Findings, Inputs, WholeStage
from .applying import enhance_map, weights_bytes
from .cells import Cells, cells_of
from .config import ENHANCER, EnhancerConfig
from .draws import CrossFitFold, cross_fit_folds
from .examples import Examples, MapExample, examples_by_id, read_examples
from .kinds import HEAD_MAPS, KIND, maps_kind, refuse_without_heads, refuse_without_heads_in_recipe
from .lessons import STEPS, WATCHED_EVERY, Best, make_lesson, make_networks
from .report import BeforeAfterCounts, EnhancedMaps, before_after_counts, before_after_scores

METRICS = "metrics.jsonl"
ExamplesById = Mapping[str, Sequence[MapExample]]  # id → its rows


def reads(config: EnhancerConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    refuse_without_heads(inputs["maps"])
    truth = ("mask", "labels") if "mask" in inputs["images"].plan.fields else ("labels",)
    return {"maps": (HEAD_MAPS, "map", "cut"), "images": truth}


def compute(config: EnhancerConfig, inputs: Inputs, underway: Underway) -> Findings:
    maps, truth = inputs["maps"], GroundTruth(inputs["images"], "--images")
    refuse_other_classes(maps, inputs["images"])
    facts = MapsFacts.of(maps)
    classes = class_indices(config.classes, facts.classes, "the maps")
    pictures = examples_by_id(maps, truth, classes)
    if not pictures:
        raise InputError(
            f"no picture of {maps.place} has a mask in {inputs['images'].place}"
            f"{' and shows one of the given --classes' if classes else ''}; index the pictures with their masks, or "
            "pass an index with masks as --images"
        )
    ids = _draw_pictures(config, pictures, truth, classes, class_names(facts.classes), underway)
    folds = cross_fit_folds(ids, config.cross_fit or 1)
    cells = cells_of(facts, config.cells)
    with one_thread():  # so that a checkpoint does not depend on the machine's threads
        best, lines = _fit_networks(config, maps, truth, pictures, folds, cells, underway)
        counts = _score_held_out(maps, truth, pictures, classes, folds, cells, best.networks)
    held_out = before_after_scores(counts, config.seed)
    seen = [SeenByNetwork(fold.fitting, fold.stopping, fold.held_out) for fold in folds]
    return Findings(
        files={
            WEIGHTS: weights_bytes(best.networks),
            METRICS: "".join(line + "\n" for line in lines).encode(),
            SEEN: networks_seen_json(seen),
        },
        facts={
            "kind": KIND,
            **maps_kind(maps),
            "networks": len(folds),
            "cells": config.cells,
            "fitting": len(set(chain.from_iterable(fold.fitting for fold in folds))),
            "stopping": len(set(chain.from_iterable(fold.stopping for fold in folds))),
            "best_steps": [int(step) + 1 for step in best.step_N],
            "held_out": held_out,
        },
        warnings=_warnings(held_out, len(ids), len(counts.before)),
    )


def _draw_pictures(
    config: EnhancerConfig,
    pictures: ExamplesById,
    truth: GroundTruth,
    classes: Sequence[int],
    names: Mapping[int, str],
    underway: Underway,
) -> list[str]:
    draw = MaskDraw(
        share=config.gt_fraction,
        per_class=config.gt_per_class,
        ids=config.gt_list,
        seed=config.seed,
        needs="mask or no valid map",
    )
    drawn = draw_masked_pictures(draw, pictures, truth, classes, names, underway)
    if len(drawn) < config.cross_fit:
        raise ConfigError(
            f"--cross-fit is {config.cross_fit}, found {count_of(len(drawn), 'drawn picture')} with ground truth; draw "
            "at least one per network"
        )
    return drawn


def _fit_networks(
    config: EnhancerConfig,
    maps: Artifact,
    truth: GroundTruth,
    pictures: ExamplesById,
    folds: Sequence[CrossFitFold],
    cells: Cells,
    underway: Underway,
) -> tuple[Best, list[str]]:
    def read(ids: Sequence[str]) -> Examples:
        return read_examples(maps, truth, [row for identifier in ids for row in pictures[identifier]], cells)

    fitting = [read(fold.fitting) for fold in folds]
    for fold, examples in zip(folds, fitting, strict=True):
        if not examples.weight.any():
            raise InputError(
                f"every mask to fit on ({len(fold.fitting)}, the first that of {fold.fitting[0]!r}) is 255 (undecided) "
                "everywhere; draw more pictures, or name others in --gt-list"
            )
    stopping = [read(fold.stopping) for fold in folds]
    networks = make_networks(maps.plan.fields[HEAD_MAPS].shape[0], fitting, config.seed)
    best, course = Best(networks), Course(steps=STEPS, steps_per_epoch=WATCHED_EVERY, seed=config.seed)
    lines = train(make_lesson(networks, best, fitting, stopping, course, config.loss), course, underway)
    return best, lines


def _score_held_out(
    maps: Artifact,
    truth: GroundTruth,
    pictures: ExamplesById,
    classes: Sequence[int],
    folds: Sequence[CrossFitFold],
    cells: Cells,
    networks: nn.ModuleList,
) -> BeforeAfterCounts:
    """Scores pictures that were not drawn; if all were drawn, each with the network that holds it out."""
    seen = {identifier for fold in folds for identifier in (*fold.fitting, *fold.stopping)}
    own = {identifier: number for number, fold in enumerate(folds) for identifier in fold.held_out}
    unseen = {identifier: rows for identifier, rows in pictures.items() if identifier not in seen}

    def enhance(rows: Sequence[MapExample], heads_KHRC: np.ndarray) -> EnhancedMaps:
        used = [networks[own[rows[0].id]]] if rows[0].id in own else list(networks)
        pairs = zip(rows, heads_KHRC, strict=True)
        return np.stack([enhance_map(used, heads_HRC, row.box, cells) for row, heads_HRC in pairs])

    held_out = unseen or {identifier: pictures[identifier] for identifier in own}
    return before_after_counts(maps, truth, held_out, classes, cells, enhance)


def _warnings(held_out: Mapping[str, Json], num_drawn: int, num_left: int) -> list[str]:
    if not held_out["pictures"]:
        why = f"every picture with ground truth was drawn ({num_drawn})"
        if num_left:
            why = f"the masks of {count_of(num_left, 'held-out picture')} are 255 (undecided) everywhere"
        return [f"{why}, so the enhanced maps cannot be scored; draw fewer pictures, or pass --cross-fit"]
    before, after, gain = (held_out[name]["estimate"] for name in ("before", "after", "difference"))
    sentence = (
        f"the enhanced maps are not better: on {count_of(held_out['pictures'], 'held-out picture')} mIoU was "
        f"{before:.3f} and is {after:.3f}; give more masks, or refine the maps as they are"
    )
    return [] if gain > 0 else [sentence]


def refuse_without_masks(configs: Configs, given: Inputs) -> None:
    refuse_without_heads_in_recipe(configs, given)
    if "index" in configs and not configs["index"].may_have_masks:
        raise ConfigError("the pictures of [index] have no masks to learn from; set masks in [index]")


FIT = WholeStage(
    command=ENHANCER,
    code_version=1,
    refuse=refuse_without_masks,
    compute=compute,
    reads=reads,
    takes_long=True,
    libraries=("numpy", "torch"),
)
