"""Soft maps from stored tokens, by one of the mask methods, each with a threshold; nothing is cut here.

Letters: R rows, T patches, H heads, E width of a head.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from ...manifests.artifact import Artifact
from ...manifests.errors import ConfigError
from ...manifests.fields import Field
from ...manifests.sealed import Json
from ...manifests.tokens import Tokens, stored_names
from ..attention.thresholds import foreground_share
from ..stage import Inputs, Known, RowList, RowResult, Stage, UnitResult, Work
from ..vision.fitting import Box, valid_patches
from .fit import refuse_other_checkpoint
from .methods import Given, Method, find_method
from .rows import KEY, LISTED, class_groups, class_rows, object_rows
from .supports import ALL, GroupKey, Queries, parse_supports
from .thresholds import PAPER_THRESHOLD, PAPER_WEIGHTS, is_paper_weights, parse_threshold, thresholds

PICTURES_AT_ONCE = 32  # whose tokens are in memory
NO_LABEL, NO_SUPPORT, NO_STRUCTURE = "no_label", "no_support", "no_structure"
NEARLY_ALL, NEARLY_NONE, WARNED_SHARE = 0.95, 0.01, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskConfig:
    method: str
    supports: str  # 0: rows without class; a number or "all": rows of a class
    seed: int
    threshold: str


@dataclass(slots=True)
class Masker:
    """What is loaded once per process."""

    method: Method
    tokens: Tokens
    model: Any
    queries: Queries | None
    sums: Mapping[GroupKey, tuple[Tensor, int]]  # of all supports of a class: the sum, and of how many


def mask_config(
    tokens: Artifact, method: str = "cst", supports: str = "", seed: int = 0, threshold: str = ""
) -> MaskConfig:
    """What a user asks for with everything that was left open decided; raises ConfigError for what cannot work.

    CST's own threshold belongs to one file of weights, so it is the default with that file only.
    """
    chosen = find_method(method)
    if supports and not chosen.takes_supports:
        raise ConfigError(f"method {method} takes no supports; leave --supports out")
    rule = threshold or chosen.threshold
    if method == "cst" and not threshold and is_paper_weights(Tokens(tokens).weights["source"]):
        rule = PAPER_THRESHOLD
    wanted = parse_supports(supports or "8") if chosen.takes_supports else "0"
    return MaskConfig(method=method, supports=wanted, seed=seed, threshold=parse_threshold(rule))


def plan(config: MaskConfig, inputs: Inputs, known: Known) -> RowList:
    tokens, images = inputs["tokens"], inputs["images"]
    method = find_method(config.method)
    refuse_other_checkpoint(method, tokens, inputs.get("model"))
    described = Tokens(tokens).backbone
    facts: dict[str, Json] = {
        "classes": images.plan.facts["classes"],
        "grid": described["grid"],
        "patch": described["patch"],
        "score_kind": method.score_kind,
        "align_corners": method.align_corners,
        "weights": dict(Tokens(tokens).weights),
        "backbone": described["name"],
    }
    batches = (
        class_rows(tokens, images, config.supports, config.seed)
        if _is_by_class(config, method)
        else object_rows(tokens, images)
    )
    return RowList(LISTED, batches, facts, KEY)


def fields(config: MaskConfig, inputs: Inputs) -> Sequence[Field]:
    rows, columns = Tokens(inputs["tokens"]).backbone["grid"]
    cut = ("class", "instance", "threshold", "box", "height", "width", "note")
    return [
        Field(name="map", kind="array", shape=(rows, columns), dtype="float32"),
        Field(name="cut", kind="columns", columns=cut),  # what else is needed to make a label of a map
    ]


def columns(config: MaskConfig) -> Mapping[str, str]:
    return {
        "class": "int64",
        "instance": "int64",
        "threshold": "float64",
        "foreground": "float64",  # share of the picture's patches above the threshold
        "box": "ints",  # of the picture in the view, in pixels: top, left, bottom, right
        "height": "int64",  # of the picture
        "width": "int64",
    }


def reads(config: MaskConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    needed = {"tokens": stored_names(inputs["tokens"], find_method(config.method).reads), "images": ("labels",)}
    return needed | ({"model": sorted(inputs["model"].fingerprints)} if "model" in inputs else {})


def prepare(config: MaskConfig, inputs: Inputs) -> Masker:
    method = find_method(config.method)
    tokens = Tokens(inputs["tokens"])
    model = method.load(inputs["model"]) if method.load and "model" in inputs else None
    queries = Queries(tokens) if method.takes_supports else None
    sums: dict[GroupKey, tuple[Tensor, int]] = {}
    if queries is not None and config.supports == ALL:
        groups = class_groups(inputs["tokens"], inputs["images"])
        positions = {key: group.positions_N.tolist() for key, group in groups.items()}
        sums = {key: (total, len(positions[key])) for key, total in queries.sums(positions).items()}
    return Masker(method, tokens, model, queries, sums)


def run_unit(work: Work, config: MaskConfig, masker: Masker) -> UnitResult:
    rows_columns = tuple(masker.tokens.backbone["grid"])
    maps = np.zeros((len(work.ids), *rows_columns), np.float32)
    results = [RowResult(_scalars(work, index, 0.0, 0.0)) for index in range(len(work.ids))]
    for rows in _some_pictures(work):
        found, notes = _mapped(work, config, masker, rows)
        maps[rows] = found.reshape(-1, *rows_columns)
        for index, result in zip(rows, _judged(work, config, masker, rows, found, notes), strict=True):
            results[index] = result
    if masker.tokens.artifact.plan.config["flip"]:
        maps = np.ascontiguousarray(maps[:, :, ::-1])
    return UnitResult(results, {"map": maps})


def warn(config: MaskConfig, facts: Mapping[str, Json], batches: Iterator[pa.RecordBatch]) -> list[str]:
    """A threshold that suits nothing shows in masks that are nearly everything or nearly nothing."""
    warnings = []
    source = facts["weights"]["source"]
    if config.method == "cst" and config.threshold == PAPER_THRESHOLD and not is_paper_weights(source):
        warnings.append(
            f"threshold 0.4 belongs to {PAPER_WEIGHTS}.pth (DINO's ViT-S/8 of 300 epochs, which CST used) and these "
            f"tokens are of {source}; choose --threshold otsu, or extract with that file"
        )
    total = extreme = 0
    for batch in batches:
        for status, note, share in zip(
            *(batch.column(n).to_pylist() for n in ("status", "note", "foreground")), strict=True
        ):
            if status == "ok" and note != NO_LABEL:
                total += 1
                extreme += share > NEARLY_ALL or share < NEARLY_NONE
    if extreme > WARNED_SHARE * total:
        warnings.append(
            f"{extreme} of {total} maps ({extreme / total:.0%}) are above the threshold on more than 95 % or less "
            f"than 1 % of the picture; the threshold is {config.threshold}, try another --threshold"
        )
    return warnings


def _is_by_class(config: MaskConfig, method: Method) -> bool:
    return config.supports != "0" or method.by_class


def _some_pictures(work: Work) -> Iterator[list[int]]:
    """Rows that can be done, so many that no more than PICTURES_AT_ONCE pictures are read together."""
    rows: list[int] = []
    pictures: set[str] = set()
    for index, identifier in enumerate(work.ids):
        if work.blocked[index]:
            continue
        if identifier not in pictures and len(pictures) == PICTURES_AT_ONCE:
            yield rows
            rows, pictures = [], set()
        rows.append(index)
        pictures.add(identifier)
    if rows:
        yield rows


def _mapped(
    work: Work, config: MaskConfig, masker: Masker, rows: list[int]
) -> tuple[Float32[np.ndarray, "R T"], list[str]]:
    """Maps and notes. A picture that has no label has no class to look for, and an empty map."""
    classes = [work.listing.column("class")[index].as_py() for index in rows]
    positions = [work.listing.column("position")[index].as_py() for index in rows]
    pictures = sorted(set(positions))
    place = {position: number for number, position in enumerate(pictures)}
    of_row = [place[position] for position in positions]
    read = {name: masker.tokens.at(name, pictures) for name in masker.method.reads}
    given_fields = {
        name: values if of_row == list(range(len(values))) else values[of_row] for name, values in read.items()
    }
    queries, notes = _queries(work, config, masker, rows, classes, positions)
    given = Given(given_fields, queries, _valid(work, masker, rows), classes, masker.model)
    found = masker.method.apply(given)
    if _is_by_class(config, masker.method):
        found[[index is None for index in classes]] = 0
        notes = [NO_LABEL if index is None else note for index, note in zip(classes, notes, strict=True)]
    return found, notes


def _queries(
    work: Work,
    config: MaskConfig,
    masker: Masker,
    rows: list[int],
    classes: Sequence[int | None],
    positions: Sequence[int],
) -> tuple[Float32[Tensor, "R H E"] | None, list[str]]:
    """The class query of each row; the picture's own where no other can stand for its class, which is noted."""
    if masker.queries is None:
        return None, [""] * len(rows)
    if config.supports == "0":
        return masker.queries.at(positions), [""] * len(rows)
    found, notes = [], []
    for index, position, row in zip(classes, positions, rows, strict=True):
        own = masker.queries.at([position])[0]
        supports = work.listing.column("supports")[row].as_py()
        total, count = masker.sums.get((index or 0, work.listing.column("split")[row].as_py() or ""), (None, 0))
        if supports:
            query = masker.queries.mean_at(supports)
        elif total is not None and count > 1:
            query = ((total - own.double()) / (count - 1)).float()
        else:
            query = own
        found.append(query)
        notes.append("" if supports or count > 1 else NO_SUPPORT)
    return torch.stack(found), notes


def _judged(
    work: Work,
    config: MaskConfig,
    masker: Masker,
    rows: list[int],
    found: Float32[np.ndarray, "R T"],
    notes: list[str],
) -> list[RowResult]:
    """Each row's threshold and foreground. A map that is not finite fails when it is written."""
    valid_RT = _valid(work, masker, rows)
    is_usable = np.isfinite(found).all(axis=1) & np.array([note != NO_LABEL for note in notes])
    threshold_R, share_R = np.zeros(len(rows), np.float32), np.zeros(len(rows))
    is_flat_R = np.zeros(len(rows), bool)
    if is_usable.any():
        threshold_R[is_usable], is_flat_R[is_usable] = thresholds(
            config.threshold, found[is_usable], valid_RT[is_usable]
        )
        share_R[is_usable] = foreground_share(found[is_usable], threshold_R[is_usable], valid_RT[is_usable])
    return [
        RowResult(
            _scalars(work, index, float(threshold_R[place]), float(share_R[place])),
            note=NO_STRUCTURE if is_flat_R[place] else notes[place],
        )
        for place, index in enumerate(rows)
    ]


def _scalars(work: Work, index: int, threshold: float, foreground: float) -> dict[str, Json]:
    """What the row says; the box as it lies in the picture's own direction."""
    row = {name: work.upstream["tokens"].column(name)[index].as_py() for name in ("box", "height", "width")}
    box = row["box"]
    tokens = work.inputs["tokens"].plan
    if box and tokens.config["flip"]:
        view_width = tokens.config["image_size"][1]
        box = [box[0], view_width - box[3], box[2], view_width - box[1]]
    return {
        "threshold": threshold,
        "foreground": foreground,
        "box": box,
        "height": row["height"],
        "width": row["width"],
    }


def _valid(work: Work, masker: Masker, rows: list[int]) -> Bool[np.ndarray, "R T"]:
    described = masker.tokens.backbone
    patch, grid = tuple(described["patch"]), tuple(described["grid"])
    boxes: list[Box] = [tuple(work.upstream["tokens"].column("box")[index].as_py()) for index in rows]
    by_box = {box: valid_patches(box, patch, grid).ravel() for box in set(boxes)}
    return np.stack([by_box[box] for box in boxes])


STAGE = Stage(
    name="mask",
    kind="maps",
    code_version=1,
    config=MaskConfig,
    roles={"tokens": "tokens", "images": "images", "model": "checkpoint"},
    plan=plan,
    fields=fields,
    columns=columns,
    reads=reads,
    prepare=prepare,
    run_unit=run_unit,
    warn=warn,
    libraries=("torch",),
)
