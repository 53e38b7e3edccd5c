"""A student's inputs: stored tokens, or the frozen backbone run on pictures now.

Letters: B pictures, L blocks, M class token and patches, T patches, S class token and 12×12 patches, D width of a
token, K of a key (heads one after the other), H W pixels of a picture.

tokens          B L M D   of several blocks
block_tokens    B M D     of one block, by default the last
support_tokens  B L S D   of the same blocks
keys            B T K     of the last block, like cls_query (B K)

Students of pairs (`support_tokens`) need views without padding, squashed as CST's are. In a padded view, cells of the
12×12 grid are part picture and part padding, and the norms of the learner cover all patches. Cropping the query would
not help the support, so padded tokens are refused for these students.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import BackboneFacts, Facts
from ...manifests.artifact.rows_by_id import ok_row_positions
from ...manifests.artifact.tokens import Tokens
from ...manifests.errors import ConfigError, InputError
from ...manifests.pictures.indexed import IndexedPictures
from ...manifests.published.dataset import Dataset
from ..read_ahead import read_ahead
from ..vision.backbone import backbone_facts, find_device, load_backbone, training_size
from ..vision.builtin import full_backbone_name
from ..vision.computing import Extractor, fitting_batch
from ..vision.feature_forms import KEYS, RAW_KEYS
from ..vision.fitting import Box, fit_picture
from ..vision.key_bias import key_bias
from ..vision.patch_features import read_patches, resolve_keys
from ..vision.pictures import MAX_DECODERS, ViewSpec, load_picture
from ..vision.profiles import PROFILES
from ..vision.token_fields import LAST_ONLY, Wanted, refuse_unavailable
from ..vision.weights import read_weights
from .backbone_config import BackboneConfig
from .feature_names import ONE_BLOCK, SEVERAL

_BATCH = 16  # pictures on a GPU at a time

Size = tuple[int, int]  # rows and columns


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec(Facts):
    """The features that a student is trained on; it cannot use any others."""

    backbone: str
    weights_sha256: str
    positions: str
    size_px: Size
    fit: str
    blocks: tuple[int, ...]  # whose tokens it reads
    heads: int
    width: int
    grid: Size
    patch: Size

    @property
    def channels(self) -> int:
        return self.heads * len(self.blocks)

    def refuse_other(self, trained: "FeatureSpec", where: str) -> None:
        """`trained` are the features that a checkpoint was trained on; `where` names these ones."""
        expected = trained.as_json()
        for name, value in self.as_json().items():
            if expected[name] != value:
                raise ConfigError(
                    f"the checkpoint was trained on {name} {expected[name]}, but {where} have {name} {value}; give "
                    "features like those that it was trained on"
                )


def _feature_spec(
    backbone: BackboneFacts, weights_sha256: str, positions: str, fit: str, blocks: tuple[int, ...]
) -> FeatureSpec:
    return FeatureSpec(
        backbone=backbone.name,
        weights_sha256=weights_sha256,
        positions=positions,
        size_px=(backbone.rows_px, backbone.columns_px),
        fit=fit,
        blocks=blocks,
        heads=backbone.heads,
        width=backbone.width,
        grid=backbone.grid,
        patch=backbone.patch,
    )


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    fields: Mapping[str, Tensor]  # as stored, on the CPU
    boxes: tuple[Box, ...]  # where each picture lies in its view


@runtime_checkable
class Features(Protocol):
    @property
    def sight(self) -> FeatureSpec: ...

    @property
    def where(self) -> str:
        """For messages: what these are features of, in the plural."""
        ...

    def require(self, ids: Sequence[str]) -> None:
        """Raises InputError if a picture is known to have no features."""
        ...

    def read(self, ids: Sequence[str], fields: Sequence[str]) -> FeatureBatch:
        """The features of pictures, in the order of `ids`. Raises InputError if a picture has none."""
        ...


class Cached:
    """Stored tokens, checked as they are read."""

    def __init__(self, tokens: Tokens, fields: Sequence[str], block: int | None = None) -> None:
        """`fields` are all that will be read; raises ConfigError, with a command to extract them, if any is missing.
        `block` is that of ONE_BLOCK; None for the last."""
        self._tokens = tokens
        self._block = _find_block(block, tokens.facts.backbone.depth)
        self._keys = resolve_keys(tokens) if KEYS.field in fields else RAW_KEYS
        blocks = _blocks_to_read(tokens, fields, self._block)
        facts, config = tokens.facts, tokens.artifact.plan.config
        self.where = f"tokens of {tokens.artifact.place}"
        if config["flip"]:
            unflipped = tokens.command(_fields_to_extract(fields, block), "unflipped", flip=False)
            raise ConfigError(f"{tokens.artifact.place} is a mirrored view; extract another with `{unflipped}`")
        squashed = tokens.command(_fields_to_extract(fields, block), "squash", fit="squash", flip=False)
        _refuse_padding(config["fit"], fields, f"{tokens.artifact.place} is", f"extract one with `{squashed}`")
        self.sight = _feature_spec(facts.backbone, facts.weights.sha256, config["positions"], config["fit"], blocks)

    def require(self, ids: Sequence[str]) -> None:
        ok_row_positions(self._tokens.artifact, ids, "tokens")

    def read(self, ids: Sequence[str], fields: Sequence[str]) -> FeatureBatch:
        positions = ok_row_positions(self._tokens.artifact, ids, "tokens")
        boxes = self._tokens.artifact.rows_at(positions, ["box"]).column("box").to_pylist()
        values = {name: torch.from_numpy(self._values(name, positions)) for name in fields}
        return FeatureBatch(values, tuple((box[0], box[1], box[2], box[3]) for box in boxes))

    def _values(self, name: str, positions: Sequence[int]) -> np.ndarray:
        if name == KEYS.field:
            return read_patches(self._tokens, self._keys, positions)
        if name != ONE_BLOCK:
            return self._tokens.at(name, positions)
        return self._tokens.at("tokens", positions, [self._tokens.blocks("tokens").index(self._block)])[:, 0]


def resolve_backbone(config: BackboneConfig, device: str) -> BackboneConfig:
    """Settles open options as `extract` does; raises ConfigError for a config that cannot work."""
    find_device(device)
    backbone = full_backbone_name(config.backbone)
    rows_px, columns_px = config.image_size or training_size(backbone)
    facts = backbone_facts(backbone, rows_px, columns_px)
    if config.weights_sha256:
        return replace(config, device=device)
    weights, state = read_weights(backbone, config.weights)
    positions = PROFILES[weights.family].positions
    bias = key_bias(facts, state, positions)
    return replace(
        config,
        backbone=backbone,
        weights_sha256=weights.sha256,
        image_size=(rows_px, columns_px),
        positions=positions,
        weights=os.path.abspath(config.weights) if os.path.exists(config.weights) else config.weights,
        device=device,
        keys=str(RAW_KEYS if PROFILES[weights.family].feature == str(RAW_KEYS) or not bias else KEYS),
    )


# An id and a view → the picture fitted to the view, and the box where it lies in the view.
PictureLoader = Callable[[str, ViewSpec], tuple[UInt8[np.ndarray, "rows columns 3"], Box]]


class Online:
    """The backbone, run as in `extract`, with the same float16 numbers."""

    def __init__(
        self,
        seeing: BackboneConfig,
        fields: Sequence[str],
        pictures: PictureLoader,
        blocks: Sequence[int] = (),
        block: int | None = None,
    ) -> None:
        """`fields` are all that will be read; tokens come from all blocks if `blocks` is empty. `block` is that of
        ONE_BLOCK; None for the last."""
        facts = backbone_facts(seeing.backbone, *seeing.image_size)
        self.where = f"features of {seeing.backbone}"
        _refuse_padding(seeing.fit, fields, "the view is", "choose one with --fit squash")
        self._block = _find_block(block, facts.depth)
        several = tuple(blocks or range(facts.depth)) if set(SEVERAL) & set(fields) else (self._block,)
        refuse_unavailable(facts, _blocks_by_field(fields, several, facts.depth, self._block))
        self.sight = _feature_spec(facts, seeing.weights_sha256, seeing.positions, seeing.fit, several)
        rows_px, columns_px = seeing.image_size
        self._view = ViewSpec(rows_px=rows_px, columns_px=columns_px, fit=seeing.fit, flip=False, mean=facts.mean)
        self._pictures, self._depth = pictures, facts.depth
        _, state = read_weights(seeing.backbone, seeing.weights, seeing.weights_sha256)
        backbone = load_backbone(seeing.backbone, state, rows_px, columns_px, seeing.positions, seeing.device)
        is_raw = seeing.keys == str(RAW_KEYS)
        self._key_bias_K = np.array(0 if is_raw else key_bias(facts, state, seeing.positions), np.float32)
        self._extractor = Extractor(backbone, "off", torch.float16, fitting_batch(backbone, "off", _BATCH))

    def require(self, ids: Sequence[str]) -> None:
        """Does nothing: a picture is only checked when it is opened."""

    def read(self, ids: Sequence[str], fields: Sequence[str]) -> FeatureBatch:
        threads = max(1, min(MAX_DECODERS, torch.get_num_threads(), len(ids)))
        loaded = list(read_ahead(lambda identifier: self._pictures(identifier, self._view), ids, len(ids), threads))
        blocks = _blocks_by_field(fields, self.sight.blocks, self._depth, self._block)
        launched = self._extractor.launch(np.stack([pixels for pixels, _ in loaded]), blocks)
        computed = {name: torch.from_numpy(values) for name, values in launched.fetch().items()}
        values = {name: self._field(name, computed, blocks) for name in fields}
        return FeatureBatch(values, tuple(box for _, box in loaded))

    def _field(self, name: str, computed: Mapping[str, Tensor], blocks: Wanted) -> Tensor:
        if name == ONE_BLOCK:
            return computed["tokens"][:, list(blocks["tokens"]).index(self._block)]
        if name == KEYS.field and self._key_bias_K.any():
            return computed[name].float() - torch.from_numpy(self._key_bias_K)
        return computed[name][:, : len(self.sight.blocks)] if name == "tokens" else computed[name]


def pictures_of_dataset(labels: Dataset) -> PictureLoader:
    """The pictures of a published dataset: embedded ones, or those that it leads to."""
    places = {identifier: place for place, identifier in enumerate(labels.ids)}

    def picture(identifier: str, view: ViewSpec) -> tuple[np.ndarray, Box]:
        if identifier not in places:
            raise InputError(f"{labels.artifact.place} has no picture {identifier!r}; `rows` lists the ids")
        picture_HW3 = labels.image(places[identifier]).permute(1, 2, 0).numpy()
        return fit_picture(picture_HW3, view.rows_px, view.columns_px, view.fit, view.mean)

    return picture


def pictures_of_images(images: Artifact) -> PictureLoader:
    """The pictures of an images artifact, from where they were indexed."""
    indexed = IndexedPictures.of(images)

    def picture(identifier: str, view: ViewSpec) -> tuple[np.ndarray, Box]:
        (position,) = ok_row_positions(images, [identifier], "picture")
        (row,) = images.rows_at([position], ["uri", "sha256"]).to_pylist()
        loaded = load_picture(indexed, row, view)
        if loaded.pixels is None:
            raise InputError(
                f"the picture {identifier!r} of {images.place} cannot be used ({loaded.result.reason}); restore it, or "
                "index the pictures again"
            )
        top, left, bottom, right = loaded.result.scalars["box"]
        return loaded.pixels, (top, left, bottom, right)

    return picture


def _find_block(block: int | None, depth: int) -> int:
    if block is not None and block >= depth:
        raise ConfigError(f"--block is {block}; choose a block from 0 to {depth - 1}")
    return depth - 1 if block is None else block


def _blocks_to_read(tokens: Tokens, fields: Sequence[str], block: int) -> tuple[int, ...]:
    """The blocks of the stored tokens for students of pairs; else the one block."""
    last, where = tokens.facts.backbone.depth - 1, tokens.artifact.place
    to_extract = _fields_to_extract(fields, None if block == last else block)
    is_for_pairs = bool(set(SEVERAL) & set(fields))
    stored = [tokens.blocks(name) for name in SEVERAL if name in tokens.fields]
    subset = "+".join(map(str, stored[0])) if stored and len(stored[0]) <= last else ""
    all_blocks = f"`{tokens.command(to_extract, 'all')}`"
    is_partly_stored = subset and len(stored) < len(SEVERAL)
    tokens.require(
        [name.partition(":")[0] for name in to_extract],
        dict.fromkeys(SEVERAL, subset or "all") if is_for_pairs else None,
        f" for blocks {subset} only, or extract all blocks with {all_blocks}" if is_partly_stored else "",
    )
    if ONE_BLOCK in fields and block not in tokens.blocks("tokens"):
        held = list(tokens.blocks("tokens"))
        which = f"of the last, {last}" if block == last else f"of {block}"
        beside = "last" if block == last else f"block-{block}"
        raise ConfigError(
            f"{where} holds tokens of blocks {held} and not {which}; extract them with "
            f"`{tokens.command(to_extract, beside)}`, or choose another --block"
        )
    if not is_for_pairs:
        return (block,)
    if len(set(stored)) > 1:
        raise ConfigError(
            f"{where} holds tokens of blocks {list(stored[0])} but support_tokens of blocks {list(stored[1])}; extract "
            f"both of the same blocks with {all_blocks}"
        )
    return stored[0]


def _fields_to_extract(fields: Sequence[str], block: int | None = None) -> list[str]:
    """The fields as `extract` spells them, of all blocks if a student reads several."""
    one = "tokens" if block is None else f"tokens:{block}"
    named = {ONE_BLOCK: one, **{name: f"{name}:all" for name in SEVERAL}}
    return list(
        dict.fromkeys(named.get(name, name) for name in fields if name != ONE_BLOCK or SEVERAL[0] not in fields)
    )


def _refuse_padding(fit: str, fields: Sequence[str], what: str, how: str) -> None:
    if "support_tokens" in fields and fit != "squash":
        raise ConfigError(f"{what} a padded view, and the padding would be part of every pair; {how}")


def _blocks_by_field(fields: Sequence[str], several: Sequence[int], depth: int, one: int) -> Wanted:
    """The blocks to compute; the tokens of the one block follow those of several."""
    blocks: dict[str, Sequence[int]] = {name: [depth - 1] for name in fields if name in LAST_ONLY}
    blocks |= {name: list(several) for name in fields if name in SEVERAL}
    if ONE_BLOCK in fields:
        blocks["tokens"] = list(dict.fromkeys([*blocks.get("tokens", ()), one]))
    return blocks
