"""An enhancer is fitted: from the heads' maps and a few ground-truth masks to a checkpoint for `enhance apply`."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from torch import nn

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.checkpoints import SEEN, WEIGHTS, SeenByNetwork, networks_seen_json
from ...manifests.artifact.facts import MapsFacts
from ...manifests.artifact.underway import Underway
from ...manifests.errors import ConfigError, InputError
from ...manifests.files.sealed import Json
from ...manifests.published.schema import class_indices, class_names
from ..learning.draws import draw_per_class, order_by_hash
from ..learning.loop import Course, train
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
            f"{' and shows one of the classes named' if classes else ''}; index the pictures with their masks, or pass "
            "as --images those that have some"
        )
    names = class_names(facts.classes)
    ids = draw_ids(config, pictures, truth, classes, names, underway)
    learned = cross_fit_folds(ids, config.cross_fit or 1)
    cells = cells_of(facts, config.cells)
    with one_thread():  # so that a checkpoint does not depend on the machine's threads
        best, lines = _fit_networks(config, maps, truth, pictures, learned, cells, underway)
        reported = _score_held_out(maps, truth, pictures, classes, learned, cells, best.networks)
    held_out = before_after_scores(reported, config.seed)
    seen = [SeenByNetwork(part.fitting, part.stopping, part.held_out) for part in learned]
    return Findings(
        files={
            WEIGHTS: weights_bytes(best.networks),
            METRICS: "".join(line + "\n" for line in lines).encode(),
            SEEN: networks_seen_json(seen),
        },
        facts={
            "kind": KIND,
            **maps_kind(maps),
            "networks": len(learned),
            "cells": config.cells,
            "fitting": len({each for part in learned for each in part.fitting}),
            "stopping": len({each for part in learned for each in part.stopping}),
            "best_steps": [int(step) + 1 for step in best.step_N],
            "held_out": held_out,
        },
        warnings=_warnings(held_out, len(ids), len(reported.before)),
    )


def draw_ids(
    config: EnhancerConfig,
    pictures: ExamplesById,
    truth: GroundTruth,
    classes: Sequence[int],
    names: Mapping[int, str],
    underway: Underway,
) -> list[str]:
    """In the order of their hashes."""
    if config.gt_list:
        chosen = order_by_hash(_ids_with_masks(config.gt_list, pictures, truth, classes, underway), config.seed)
    else:
        shown = {
            identifier: [each for each in truth.labels[identifier] if not classes or each in classes] or [0]
            for identifier in pictures
        }
        chosen = draw_per_class(shown, _pictures_per_class(config), config.seed)
        _report_small_classes(config, shown, names, underway)
    if len(chosen) < config.cross_fit:
        raise ConfigError(
            f"cross-fit is {config.cross_fit} and {len(chosen)} pictures with ground truth were drawn; draw at "
            "least as many as there are networks"
        )
    return chosen


def _pictures_per_class(config: EnhancerConfig) -> Callable[[int], int]:
    """Of so many pictures of a class, how many."""
    return lambda number: config.gt_per_class or max(1, round(config.gt_fraction * number))


def _ids_with_masks(
    ids: Sequence[str], pictures: ExamplesById, truth: GroundTruth, classes: Sequence[int], underway: Underway
) -> list[str]:
    found = [identifier for identifier in ids if identifier in pictures]
    others = [identifier for identifier in ids if identifier not in pictures]
    strangers = [identifier for identifier in others if identifier not in truth.ids] if classes else others
    if strangers:
        raise InputError(
            f"{len(strangers)} ids of gt-list have no mask, or no map that is ok, the first is {strangers[0]!r}; "
            "correct the list (an id is a picture's path without its extension)"
        )
    if not found:
        raise InputError("no picture of gt-list shows one of the classes named; name others, or leave classes out")
    if others:
        underway.say(f"{len(others)} pictures of gt-list show none of the classes named and are left out")
    return found


def _report_small_classes(
    config: EnhancerConfig, shown: Mapping[str, Collection[int]], names: Mapping[int, str], underway: Underway
) -> None:
    counts = Counter(index for indices in shown.values() for index in indices)
    few = sorted(index for index, count in counts.items() if count < config.gt_per_class)
    if few:
        named = ", ".join(f"{names.get(index, 'without class')}: {counts[index]}" for index in few[:8])
        named += " …" if len(few) > 8 else ""
        underway.say(
            f"{len(few)} classes have fewer than {config.gt_per_class} pictures with ground truth, all of which are "
            f"drawn ({named})"
        )


def _fit_networks(
    config: EnhancerConfig,
    maps: Artifact,
    truth: GroundTruth,
    pictures: ExamplesById,
    learned: Sequence[CrossFitFold],
    cells: Cells,
    underway: Underway,
) -> tuple[Best, list[str]]:
    def read(ids: Sequence[str]) -> Examples:
        return read_examples(maps, truth, [row for identifier in ids for row in pictures[identifier]], cells)

    fitting = [read(part.fitting) for part in learned]
    for part, examples in zip(learned, fitting, strict=True):
        if not examples.weight.any():
            raise InputError(
                f"the masks of the {len(part.fitting)} pictures to fit on, the first is {part.fitting[0]!r}, are 255 "
                "(undecided) everywhere; draw more, or name others in gt-list"
            )
    stopping = [read(part.stopping) for part in learned]
    networks = make_networks(maps.plan.fields[HEAD_MAPS].shape[0], fitting, config.seed)
    best, course = Best(networks), Course(steps=STEPS, steps_per_epoch=WATCHED_EVERY, seed=config.seed)
    lines = train(make_lesson(networks, best, fitting, stopping, course, config.loss), course, underway)
    return best, lines


def _score_held_out(
    maps: Artifact,
    truth: GroundTruth,
    pictures: ExamplesById,
    classes: Sequence[int],
    learned: Sequence[CrossFitFold],
    cells: Cells,
    networks: nn.ModuleList,
) -> BeforeAfterCounts:
    """On pictures that were not drawn; where all were, on each by the network that has not seen it, if there is one."""
    seen = {identifier for part in learned for identifier in (*part.fitting, *part.stopping)}
    own = {identifier: number for number, part in enumerate(learned) for identifier in part.held_out}
    unseen = {identifier: rows for identifier, rows in pictures.items() if identifier not in seen}

    def enhance(rows: Sequence[MapExample], heads_KHRC: np.ndarray) -> EnhancedMaps:
        used = [networks[own[rows[0].id]]] if rows[0].id in own else list(networks)
        return np.stack(
            [enhance_map(used, heads_HRC, row.box, cells) for row, heads_HRC in zip(rows, heads_KHRC, strict=True)]
        )

    held_out = unseen or {identifier: pictures[identifier] for identifier in own}
    return before_after_counts(maps, truth, held_out, classes, cells, enhance)


def _warnings(held_out: Mapping[str, Json], num_drawn: int, num_left: int) -> list[str]:
    if not held_out["pictures"]:
        why = (
            f"the masks of the {num_left} pictures that were not seen are 255 (undecided) everywhere"
            if num_left
            else f"all {num_drawn} pictures with ground truth were drawn"
        )
        sentence = (
            f"{why}, so nothing tells whether the enhanced maps are better; draw fewer, or have each judged by a "
            "network that has not seen it, with cross-fit"
        )
        return [sentence]
    before, after, by = (held_out[name]["estimate"] for name in ("before", "after", "difference"))
    sentence = (
        f"the enhanced maps are not better: on {held_out['pictures']} pictures that were not seen mIoU was "
        f"{before:.3f} and is {after:.3f}; give it more masks, or refine the maps as they are"
    )
    return [] if by > 0 else [sentence]


def refuse_without_masks(configs: Configs, given: Inputs) -> None:
    refuse_without_heads_in_recipe(configs, given)
    if "index" in configs and not configs["index"].may_have_masks:
        raise ConfigError("the pictures of [index] have no masks to learn from; give it masks")


FIT = WholeStage(
    command=ENHANCER,
    code_version=1,
    refuse=refuse_without_masks,
    compute=compute,
    reads=reads,
    takes_long=True,
    libraries=("numpy", "torch"),
)
