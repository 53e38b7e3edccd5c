"""The supports of in-context masks: patches of a few masked pictures, kept in a checkpoint.

Letters: T patches of a view, P patches of a support that show it and whose mask is known, K width of the feature,
O objects: one row per class in the picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.checkpoints import SEEN, WEIGHTS, training_ids, training_ids_json
from ...manifests.artifact.facts import ImagesFacts, TokensFacts
from ...manifests.artifact.tokens import Tokens
from ...manifests.artifact.underway import Underway
from ...manifests.classes import IGNORE
from ...manifests.counts import count_of
from ...manifests.errors import CorruptArtifact, InputError
from ...manifests.published.schema import class_names
from ..learning.mask_draws import MaskDraw, draw_masked_pictures
from ..scores.truth import GroundTruth
from ..stage import Findings, Inputs
from ..vision.cell_shares import cell_shares
from ..vision.feature_forms import Feature
from ..vision.fitting import Box, valid_patches
from ..vision.patch_features import read_patches
from .config import FitConfig
from .incontext import Support, unit_length


@dataclass(frozen=True, slots=True)
class SupportBank:
    by_class: Mapping[int, Mapping[str, Support]]  # class → image id → support

    def supports(self, index: int, identifier: str) -> list[Support]:
        """The supports of a class for a picture, which does not support itself unless it is the only one."""
        supports = self.by_class.get(index, {})
        return [support for other, support in supports.items() if other != identifier] or list(supports.values())


def fit_bank(config: FitConfig, inputs: Inputs, underway: Underway) -> Findings:
    tokens, truth = Tokens(inputs["tokens"]), GroundTruth(inputs["images"], "--images")
    pictures = _pictures_with_masks(tokens.artifact, truth)
    names = class_names(ImagesFacts.of(inputs["images"]).classes)
    if not pictures:
        raise InputError(
            f"no picture of {tokens.artifact.place} has a label and a mask in {inputs['images'].place}; pass as "
            "--images an index with labels and masks of these pictures"
        )
    draw = MaskDraw(
        per_class=config.gt_per_class, ids=config.gt_list, seed=config.seed, needs="mask, no label or no tokens"
    )
    ids = sorted(draw_masked_pictures(draw, pictures, truth, (), names, underway))
    tensors: dict[str, np.ndarray] = {}
    assert config.feature is not None
    for number, identifier in enumerate(ids):
        tensors |= _support_tensors(tokens, config.feature, pictures[identifier], identifier, truth, str(number))
    covered = sorted({int(index) for name, values in tensors.items() if name.startswith("classes") for index in values})
    if not covered:
        raise InputError(
            f"the masks of all {count_of(len(ids), 'drawn picture')} show none of the pictures' labels, the first is "
            f"{ids[0]!r}; draw more pictures, or name others in --gt-list"
        )
    missing = sorted({label for identifier in truth.labels for label in truth.labels[identifier]} - set(covered))
    return Findings(
        files={WEIGHTS: save(tensors), SEEN: training_ids_json([], [], ids, [])},
        facts={"supports": len(ids), "supported_classes": covered},
        warnings=_missing_classes(missing, names),
    )


def load_bank(checkpoint: Artifact) -> SupportBank:
    ids = sorted(training_ids(checkpoint, "masks"))
    by_class: dict[int, dict[str, Support]] = {}
    try:
        tensors = load(checkpoint.file(WEIGHTS))
        for number, identifier in enumerate(ids):
            patches_PK = unit_length(tensors[f"patches.{number}"].astype(np.float32))
            pairs = zip(tensors[f"classes.{number}"].tolist(), tensors[f"objects.{number}"].astype(bool), strict=True)
            for index, is_object_P in pairs:
                by_class.setdefault(index, {})[identifier] = Support(patches_PK, is_object_P)
    except (SafetensorError, KeyError, ValueError) as error:
        raise CorruptArtifact(
            f"{checkpoint.place.path(WEIGHTS)} does not hold the patches of {count_of(len(ids), 'support')} ({error}); "
            "fit it again"
        ) from error
    return SupportBank(by_class)


def _pictures_with_masks(tokens: Artifact, truth: GroundTruth) -> dict[str, dict[str, Any]]:
    """Id → row with position, of the pictures with tokens, labels and a mask."""
    columns = ["id", "status", "box", "height", "width"]
    rows = (row for batch in tokens.row_batches(columns) for row in batch.to_pylist())
    return {
        row["id"]: {**row, "position": position}
        for position, row in enumerate(rows)
        if row["status"] == "ok" and row["id"] in truth.ids and truth.labels[row["id"]]
    }


def _support_tensors(
    tokens: Tokens, feature: Feature, row: Mapping[str, Any], identifier: str, truth: GroundTruth, name: str
) -> dict[str, np.ndarray]:
    """A picture's patches, its classes, and the patches of each."""
    label_IJ = truth.mask_of_size(identifier, (row["height"], row["width"]), "tokens")
    if tokens.artifact.plan.config["flip"]:
        label_IJ = label_IJ[:, ::-1]
    patches_TK = read_patches(tokens, feature, [row["position"]])[0]
    classes, is_object_OT, is_known_T = _object_patches(
        label_IJ, truth.labels[identifier], tuple(row["box"]), tokens.facts
    )
    return {
        f"patches.{name}": np.ascontiguousarray(patches_TK[is_known_T], np.float16),
        f"classes.{name}": np.array(classes, np.int64),
        # safetensors writes the memory as it lies, and selecting columns leaves them first
        f"objects.{name}": np.ascontiguousarray(is_object_OT[:, is_known_T], np.uint8),
    }


def _object_patches(
    label_IJ: UInt8[np.ndarray, "I J"], labels: Sequence[int], box: Box, facts: TokensFacts
) -> tuple[list[int], Bool[np.ndarray, "O T"], Bool[np.ndarray, " T"]]:
    """The labels that the mask shows, the patches of each, and the patches whose content is known."""
    grid, patch = facts.backbone.grid, facts.backbone.patch
    is_known_IJ = label_IJ != IGNORE
    masks = np.stack([is_known_IJ, *(label_IJ == label for label in labels)])
    known_T, *shares = cell_shares(masks, box, patch, grid).reshape(len(masks), -1)
    is_valid_T = valid_patches(box, patch, grid).ravel()
    objects = list(_objects(labels, shares, is_valid_T))
    is_object_OT = np.array([is_object_T for _, is_object_T in objects], bool).reshape(-1, is_valid_T.size)
    return [label for label, _ in objects], is_object_OT, is_valid_T & ((known_T >= 0.5) | is_object_OT.any(axis=0))


def _objects(
    labels: Sequence[int], shares: Sequence[Float32[np.ndarray, " T"]], is_valid_T: Bool[np.ndarray, " T"]
) -> Iterator[tuple[int, Bool[np.ndarray, " T"]]]:
    for label, share_T in zip(labels, shares, strict=True):
        most = float(share_T[is_valid_T].max())
        if most > 0:
            yield label, is_valid_T & (share_T >= min(0.5, most))


def _missing_classes(missing: Sequence[int], names: Mapping[int, str]) -> list[str]:
    if not missing:
        return []
    named = ", ".join(names.get(index, str(index)) for index in missing[:8]) + (" …" if len(missing) > 8 else "")
    which = f"{count_of(len(missing), 'class has', 'classes have')} no support with a mask ({named})"
    return [f"{which}, so their maps will be empty; draw more with --gt-per-class, or name pictures in --gt-list"]
