"""Reader of stored tokens, for stages and for user programs.

Letters: R requested rows, then the shape of a field for one picture.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from ..errors import ConfigError
from ..files.place import Place
from ..files.sealed import Json
from .artifact import Artifact, open_artifact
from .facts import TokensFacts
from .quantized import dequantize, scale_name
from .rows_by_id import ok_row_positions


@dataclass(frozen=True, slots=True)
class Tokens:
    """A finished tokens artifact. Holds no open file, so it can be sent to a worker."""

    artifact: Artifact

    @property
    def rows(self) -> pa.Table:
        """id, status, reason, box of the picture in the view, height and width of the picture, digests."""
        return self.artifact.rows()

    @property
    def fields(self) -> tuple[str, ...]:
        specs = self.artifact.plan.fields
        return tuple(name for name in specs if not (name.endswith(scale_name("")) and specs[name].dtype == "float32"))

    @property
    def facts(self) -> TokensFacts:
        return TokensFacts.of(self.artifact)

    @property
    def backbone(self) -> Mapping[str, Json]:
        """Facts of the backbone: name, rows_px, columns_px, patch, grid, width, depth, heads, key_width, …"""
        return self.artifact.plan.facts["backbone"]

    @property
    def weights(self) -> Mapping[str, Json]:
        """source, sha256, licence."""
        return self.artifact.plan.facts["weights"]

    def blocks(self, field: str) -> tuple[int, ...]:
        """The blocks of a field, counted from 0, in the order of its first axis."""
        return tuple(self.artifact.plan.fields[self._require_field(field)].detail["blocks"])

    def read(self, field: str, ids: str | Sequence[str]) -> Float[np.ndarray, "..."]:
        """A field of one picture, or of several in the order of `ids` along a first axis R.

        The first read of a shard checks its sha256. A failed picture or an unknown id raises InputError.
        """
        requested = [ids] if isinstance(ids, str) else list(ids)
        values_R = self.at(field, ok_row_positions(self.artifact, requested, "tokens"))
        return values_R[0] if isinstance(ids, str) else values_R

    def at(
        self, field: str, positions: Sequence[int], places: Sequence[int] | None = None
    ) -> Float[np.ndarray, "R ..."]:
        """A field by position in the row list; failed rows are zeros. `places` are those of the stored blocks to read;
        all by default."""
        values_R = self.artifact.read(self._require_field(field), positions, places)
        if self.artifact.plan.fields[field].dtype != "int8":
            return values_R
        return dequantize(values_R, self.artifact.read(scale_name(field), positions, places))

    def _require_field(self, field: str) -> str:
        self.require([field])
        return field

    def require(self, fields: Sequence[str], blocks: Mapping[str, str] | None = None, instead: str = "") -> None:
        """Raises ConfigError with the command that adds missing fields. `blocks` are the blocks to extract, by field;
        `instead` is another remedy."""
        missing = [name for name in fields if name not in self.fields]
        if missing:
            specs = [f"{name}:{blocks[name]}" if blocks and name in blocks else name for name in missing]
            raise ConfigError(
                f"{self.artifact.place} holds {', '.join(self.fields)} and no {', '.join(missing)}; add it with "
                f"`{self.command(specs)}`{instead}"
            )

    def command(self, fields: Sequence[str], beside: str = "", **other: Json) -> str:
        """The command that extracts more fields of this view into this artifact. With `beside`, it writes to a new
        artifact next to this one, whose name ends in `beside`, for other settings."""
        plan = self.artifact.plan
        arguments = ["maskmill", "extract", plan.input("images").place(self.artifact.place).uri]
        for name, value in {**plan.config, **plan.settings, **other}.items():
            if value and name not in ("fields", "weights_sha256"):
                arguments += [f"--{name.replace('_', '-')}", *_option_values(value)]
        out = self.artifact.place.uri + (f"-{beside}" if beside else "")
        return shlex.join([*arguments, "--fields", ",".join(fields), "--out", out])


def _option_values(value: Json) -> list[str]:
    """The words behind an option; none for a flag."""
    if value is True:
        return []
    return ["x".join(map(str, value))] if isinstance(value, list) else [str(value)]


def array_names(tokens: Artifact, fields: Sequence[str]) -> tuple[str, ...]:
    """The arrays that hold fields, with their scales: what a reading stage declares."""
    scales = [scale_name(name) for name in fields if scale_name(name) in tokens.plan.fields]
    return (*fields, *scales)


def open_tokens(path: str | os.PathLike[str] | Place) -> Tokens:
    """Opens a tokens artifact; raises if it is missing, unfinished, damaged or of another kind."""
    return Tokens(open_artifact(path, "tokens"))
