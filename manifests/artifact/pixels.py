"""Reader of stored pictures of one size, for stages and for user programs. Needs no torch.

Letters: R requested rows.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, UInt8

from ..files.place import Place
from .artifact import Artifact, open_artifact
from .rows_by_id import ok_row_positions

FIELD = "pixels"


@dataclass(frozen=True, slots=True)
class Pixels:
    """A finished pixels artifact. Holds no open file, so it can be sent to a worker."""

    artifact: Artifact

    @property
    def rows(self) -> pa.Table:
        """id, status, reason, box, the picture's height and width upright, digests.

        `box` is top, left, bottom, right of the whole picture in the row's pixels: y of the picture lies at
        top + y * (bottom - top) / height, for every fit. A cropped picture's box reaches beyond the row.
        """
        return self.artifact.rows()

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of every picture, in pixels."""
        rows_px, columns_px, _ = self.artifact.plan.fields[FIELD].shape
        return rows_px, columns_px

    @property
    def fit(self) -> str:
        """crop, pad or squash."""
        return str(self.artifact.plan.config["fit"])

    def __len__(self) -> int:
        """All rows, including failed ones."""
        return self.artifact.plan.num_rows

    def ok_positions(self) -> Int64[np.ndarray, " R"]:
        """Positions of the rows that hold a picture, eight bytes each; sample from these."""
        is_ok = np.ones(len(self), np.bool_)
        is_ok[list(self.artifact.failures())] = False
        return np.flatnonzero(is_ok)

    def ids_at(self, positions: Sequence[int] | Int64[np.ndarray, " R"]) -> list[str]:
        ids: list[str] = self.artifact.rows_at(np.asarray(positions).tolist(), ["id"]).column("id").to_pylist()
        return ids

    def read(self, ids: str | Sequence[str]) -> UInt8[np.ndarray, "*R rows columns 3"]:
        """One picture, or several in the order of `ids` along a first axis R.

        The first read of a shard checks its sha256. A failed picture or an unknown id raises InputError.
        """
        pixels_R = self.at(ok_row_positions(self.artifact, [ids] if isinstance(ids, str) else list(ids), FIELD))
        return pixels_R[0] if isinstance(ids, str) else pixels_R

    def at(self, positions: Sequence[int] | Int64[np.ndarray, " R"]) -> UInt8[np.ndarray, "R rows columns 3"]:
        """Pictures by position in the row list; failed rows are zeros (black)."""
        return self.artifact.read(FIELD, np.asarray(positions).tolist())


def open_pixels(path: str | os.PathLike[str] | Place) -> Pixels:
    """Opens a pixels artifact; raises if it is missing, unfinished, damaged or of another kind."""
    return Pixels(open_artifact(path, "pixels"))
