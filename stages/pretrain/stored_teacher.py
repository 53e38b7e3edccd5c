"""A teacher whose tokens are stored: which artifacts can be one, and its targets for crops of stored pictures.

Letters: N rows of the pixels, B pictures of a batch, M class token and patches, T patches, D width of a token.
"""

from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.pixels import Pixels
from ...manifests.artifact.tokens import Tokens
from ...manifests.errors import ConfigError
from ..stage import Inputs
from .config import FLIPPED, TEACHER
from .distill_targets import TeacherGrid, crop_places, match_tokens, shows_picture
from .views import Crops

FIELD = "tokens"
_SAME_VIEW = ("backbone", "weights_sha256", "image_size", "fit", "positions")  # of a view and its mirror image


@dataclass(frozen=True, slots=True)
class Targets:
    tokens_BMD: Float32[Tensor, "B M D"]
    is_counted_BT: Bool[Tensor, "B T"]  # patches that show the picture


@dataclass(frozen=True, slots=True)
class TeacherView:
    """Stored tokens by row of the pixels."""

    tokens: Tokens
    block: int  # place on the first axis of the field
    places_N: Int64[np.ndarray, " N"]
    boxes_N4: Int64[np.ndarray, "N 4"]

    def read(self, rows: Int64[np.ndarray, " B"]) -> Float32[np.ndarray, "B M D"]:
        """Raises ConfigError for numbers that are not finite."""
        values_BMD = self.tokens.at(FIELD, self.places_N[rows].tolist())[:, self.block].astype(np.float32)
        is_finite_B = np.isfinite(values_BMD).all(axis=(1, 2))
        if not is_finite_B.all():
            place = int(self.places_N[rows][~is_finite_B][0])
            identifier = self.tokens.artifact.rows_at([place], ["id"]).column("id").to_pylist()[0]
            raise ConfigError(
                f"{self.tokens.artifact.place} holds tokens of {identifier!r} that are not finite numbers, which "
                "nothing can be learned from; extract it again with --dtype float32 and --autocast off"
            )
        return values_BMD

    def is_failed(self) -> Bool[np.ndarray, " N"]:
        return np.isin(self.places_N, list(self.tokens.artifact.failures()))


@dataclass(frozen=True, slots=True)
class StoredTeacher:
    upright: TeacherView
    flipped: TeacherView | None
    grid: TeacherGrid
    pixel_boxes_N4: Int64[np.ndarray, "N 4"]

    @property
    def width(self) -> int:
        return self.upright.tokens.facts.backbone.width

    def read(self, rows: Int64[np.ndarray, " B"]) -> Float32[Tensor, "B M D"]:
        """The upright tokens as stored."""
        return torch.from_numpy(self.upright.read(rows))

    def match(self, rows: Int64[np.ndarray, " B"], crops: Crops, student_grid: tuple[int, int]) -> Targets:
        """The teacher's tokens at the student's patches of these crops; of flipped ones from the flipped view."""
        pixels_B4 = torch.from_numpy(self.pixel_boxes_N4[rows])
        places = crop_places(crops.box_B4, pixels_B4, crops.is_flipped_B, student_grid)
        tokens_BMD, boxes_B4 = self._read_views(rows, crops.is_flipped_B.numpy())
        return Targets(match_tokens(tokens_BMD, boxes_B4, self.grid, places), shows_picture(places))

    def _read_views(
        self, rows: Int64[np.ndarray, " B"], is_flipped: Bool[np.ndarray, " B"]
    ) -> tuple[Float32[Tensor, "B M D"], Int64[Tensor, "B 4"]]:
        if not is_flipped.any():
            return self.read(rows), torch.from_numpy(self.upright.boxes_N4[rows])
        assert self.flipped is not None, "without a flipped view no crop is flipped"
        mirrored = self.flipped.read(rows[is_flipped])
        tokens_BMD = np.empty((len(rows), *mirrored.shape[1:]), np.float32)
        tokens_BMD[is_flipped] = mirrored
        if not is_flipped.all():
            tokens_BMD[~is_flipped] = self.upright.read(rows[~is_flipped])
        boxes_B4 = np.where(is_flipped[:, None], self.flipped.boxes_N4[rows], self.upright.boxes_N4[rows])
        return torch.from_numpy(tokens_BMD), torch.from_numpy(boxes_B4)


def open_teacher(inputs: Inputs, block: int | None) -> tuple[StoredTeacher, Int64[np.ndarray, " N"]]:
    """The teacher, and the rows of the pixels that have a picture and all tokens."""
    refuse_strange_teacher(inputs, block)
    pixels = Pixels(inputs["pixels"])
    views = [_open_view(pixels.artifact, inputs[role], block) for role in (TEACHER, FLIPPED) if role in inputs]
    is_usable_N = np.zeros(len(pixels), np.bool_)
    is_usable_N[pixels.ok_positions()] = True
    for view in views:
        is_usable_N &= ~view.is_failed()
    facts = views[0].tokens.facts.backbone
    flipped = views[1] if len(views) > 1 else None
    teacher = StoredTeacher(views[0], flipped, TeacherGrid(facts.grid, facts.patch), _boxes(pixels.artifact))
    return teacher, np.flatnonzero(is_usable_N)


def refuse_strange_teacher(inputs: Inputs, block: int | None) -> None:
    """Refuses tokens that are not of these pictures, lack the field or the block, or are not mirrored as they are
    said to be."""
    roles = [name for name in (TEACHER, FLIPPED) if name in inputs]
    for role in roles:
        _refuse_other_pictures(inputs[role], inputs["pixels"])
        Tokens(inputs[role]).require([FIELD], None if block is None else {FIELD: str(block)})
    if inputs[TEACHER].plan.config["flip"]:
        raise ConfigError(
            f"{inputs[TEACHER].place} holds tokens of mirrored pictures; pass those of the pictures themselves as "
            "--distill, and these as --distill-flipped"
        )
    if FLIPPED in inputs:
        _refuse_other_view(inputs[TEACHER], inputs[FLIPPED])
    for role in roles:
        _refuse_missing_block(Tokens(inputs[role]), _block_of(Tokens(inputs[TEACHER]), block))


def _refuse_other_pictures(tokens: Artifact, pixels: Artifact) -> None:
    if tokens.plan.input("images").digest != pixels.plan.input("images").digest:
        raise ConfigError(
            f"{tokens.place} and {pixels.place} were made from other images, or before and after a change of them; "
            "make both again from the same images"
        )


def _refuse_other_view(upright: Artifact, flipped: Artifact) -> None:
    expected = {**{name: upright.plan.config[name] for name in _SAME_VIEW}, "flip": True}
    differing = [name for name, value in expected.items() if flipped.plan.config[name] != value]
    if differing:
        name = differing[-1]
        blocks = "+".join(map(str, Tokens(upright).blocks(FIELD)))
        remedy = Tokens(upright).command([f"{FIELD}:{blocks}"], "flipped", flip=True)
        raise ConfigError(
            f"{flipped.place} is not the mirrored view of {upright.place}: its {name} is "
            f"{flipped.plan.config[name]}, expected {expected[name]}; make it with `{remedy}`"
        )


def _refuse_missing_block(tokens: Tokens, block: int) -> None:
    stored = tokens.blocks(FIELD)
    if block not in stored:
        raise ConfigError(
            f"{tokens.artifact.place} holds tokens of block {', '.join(map(str, stored))}, expected --distill-block "
            f"{block}; add it with `{tokens.command([f'{FIELD}:{block}'])}`"
        )


def _block_of(tokens: Tokens, block: int | None) -> int:
    return max(tokens.blocks(FIELD)) if block is None else block


def _open_view(pixels: Artifact, artifact: Artifact, block: int | None) -> TeacherView:
    tokens = Tokens(artifact)
    ids = (batch.column("id").to_pylist() for batch in pixels.row_batches(["id"]))
    places_N = np.fromiter(chain.from_iterable(map(artifact.positions, ids)), np.int64, pixels.plan.num_rows)
    return TeacherView(
        tokens, tokens.blocks(FIELD).index(_block_of(tokens, block)), places_N, _boxes(artifact)[places_N]
    )


def _boxes(artifact: Artifact) -> Int64[np.ndarray, "N 4"]:
    """Of each row in planning order; 0 for failed rows."""
    boxes = (box or (0, 0, 0, 0) for batch in artifact.row_batches(["box"]) for box in batch.column("box").to_pylist())
    return np.array(list(boxes), np.int64).reshape(-1, 4)
