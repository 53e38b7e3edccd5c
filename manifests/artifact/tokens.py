"""Stored tokens for whoever reads them: a stage, or a program of a user's that has no other part of this package.

Letters: R rows asked for, then the shape that a field has of one picture.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from ..errors import ConfigError
from ..files.place import Place, place
from ..files.sealed import Json
from .artifact import Artifact, open_artifact
from .facts import TokensFacts
from .quantized import dequantize, scale_name
from .rows_by_id import ok_row_positions


@dataclass(frozen=True, slots=True)
class Tokens:
    """A finished tokens artifact. Holds no open file, so it can be sent to another process."""

    artifact: Artifact

    @property
    def rows(self) -> pa.Table:
        """id, status, reason, the box of the picture in the view, its height and width, digests."""
        return self.artifact.rows()

    @property
    def fields(self) -> tuple[str, ...]:
        held = self.artifact.plan.fields
        return tuple(name for name in held if not (name.endswith(scale_name("")) and held[name].dtype == "float32"))

    @property
    def facts(self) -> TokensFacts:
        return TokensFacts.of(self.artifact)

    @property
    def backbone(self) -> Mapping[str, Json]:
        """What is known of the backbone: name, rows_px, columns_px, patch, grid, width, depth, heads, key_width, …"""
        return self.artifact.plan.facts["backbone"]

    @property
    def weights(self) -> Mapping[str, Json]:
        """source, sha256 and licence."""
        return self.artifact.plan.facts["weights"]

    def blocks(self, field: str) -> tuple[int, ...]:
        """Which blocks a field is of, counted from 0, in the order of its first axis."""
        return tuple(self.artifact.plan.fields[self._require_field(field)].detail["blocks"])

    def read(self, field: str, ids: str | Sequence[str]) -> Float[np.ndarray, "..."]:
        """A field of one picture, or of several in the order asked for, along a first axis R.

        The first read of a shard checks its sha256. A picture that failed raises, and so does an unknown id.
        """
        wanted = [ids] if isinstance(ids, str) else list(ids)
        values_R = self.at(field, ok_row_positions(self.artifact, wanted, "tokens"))
        return values_R[0] if isinstance(ids, str) else values_R

    def at(self, field: str, positions: Sequence[int]) -> Float[np.ndarray, "R ..."]:
        """The same by position in the row list; a row that failed is zeros."""
        values_R = self.artifact.read(self._require_field(field), positions)
        if self.artifact.plan.fields[field].dtype != "int8":
            return values_R
        return dequantize(values_R, self.artifact.read(scale_name(field), positions))

    def _require_field(self, field: str) -> str:
        self.require([field])
        return field

    def require(self, fields: Sequence[str], blocks: Mapping[str, str] | None = None, instead: str = "") -> None:
        """Raises ConfigError, with the command that adds what is missing; `blocks` are those to ask for, of a field
        that has several, and `instead` is what else could be done."""
        missing = [name for name in fields if name not in self.fields]
        if missing:
            asked = [f"{name}:{blocks[name]}" if blocks and name in blocks else name for name in missing]
            raise ConfigError(
                f"{self.artifact.place} holds {', '.join(self.fields)} and no {', '.join(missing)}; add it with "
                f"`{self.command(asked)}`{instead}"
            )

    def command(self, fields: Sequence[str], beside: str = "", **other: Json) -> str:
        """What extracts more fields of the same view into the same artifact; or, where fields or settings are others
        than those that it holds, into one beside it, whose name ends in `beside`."""
        plan = self.artifact.plan
        words = ["maskmill", "extract", plan.input("images").place(self.artifact.place).uri]
        for name, value in {**plan.config, **plan.settings, **other}.items():
            if value and name not in ("fields", "weights_sha256"):
                words += [f"--{name.replace('_', '-')}", *_option_values(value)]
        out = self.artifact.place.uri + (f"-{beside}" if beside else "")
        return shlex.join([*words, "--fields", ",".join(fields), "--out", out])


def _option_values(value: Json) -> list[str]:
    """A setting as it stands behind its option; a flag has nothing there."""
    if value is True:
        return []
    return ["x".join(map(str, value))] if isinstance(value, list) else [str(value)]


def array_names(tokens: Artifact, fields: Sequence[str]) -> tuple[str, ...]:
    """The arrays behind fields: what a stage that reads them declares."""
    scales = [scale_name(name) for name in fields if scale_name(name) in tokens.plan.fields]
    return (*fields, *scales)


def open_tokens(path: str | os.PathLike[str] | Place) -> Tokens:
    """The tokens at a path or URL; raises on what is missing, unfinished, damaged or no tokens."""
    return Tokens(open_artifact(path if isinstance(path, Place) else place(path), "tokens"))
