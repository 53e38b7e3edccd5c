"""Fields: what an artifact holds for each row, declared by the stage that writes it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..files.sealed import Json

# Fill of unused slots: a value that no result holds.
FILLS: Mapping[str, float | int] = {"float16": math.nan, "float32": math.nan, "int8": -128, "uint8": 255}
ITEM_BYTES: Mapping[str, int] = {"float16": 2, "float32": 4, "int8": 1, "uint8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One thing an artifact holds for each row.

    array    a Zarr array `NAME.zarr` of fixed shape per row, one shard per unit
    table    bytes or null per row, in one Parquet file `NAME/…` per unit
    frame    several columns per row, in one Parquet file `NAME/…` per unit, for readers outside this package
    columns  columns of rows.parquet that consumers read together; no file
    """

    name: str
    kind: Literal["array", "table", "frame", "columns"]
    shape: tuple[int, ...] = ()  # of one row
    dtype: str = "float32"
    chunk: tuple[int, ...] = ()  # of one row; () for the whole row
    columns: tuple[str, ...] = ()
    basis: Mapping[str, Json] | None = None  # what decides its content, if less than the whole config
    row_bytes: int = 0  # estimate for a table or frame
    detail: Mapping[str, Json] = field(default_factory=dict, hash=False)  # distinguishes fields of the same name

    @property
    def bytes_per_row(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype] if self.kind == "array" else self.row_bytes

    @property
    def digest_column(self) -> str:
        """The column of rows.parquet that holds the sha256 of a row's content."""
        return f"{self.name}_sha256"

    def shard(self, unit: int) -> str:
        """The file that holds a unit's rows of this field."""
        if self.kind == "array":
            return f"{self.name}.zarr/c/{unit}" + "/0" * len(self.shape)
        return f"{self.name}/{unit // 100:03d}/{unit:05d}.parquet"

    def as_json(self) -> dict[str, Json]:
        return {
            "kind": self.kind,
            "shape": list(self.shape),
            "dtype": self.dtype if self.kind == "array" else None,
            "chunk": list(self.chunk),
            "columns": list(self.columns),
            **({"detail": dict(self.detail)} if self.detail else {}),
        }

    @classmethod
    def from_json(cls, name: str, value: Mapping[str, Any]) -> "Field":
        return cls(
            name=name,
            kind=value["kind"],
            shape=tuple(value["shape"]),
            dtype=value["dtype"] or "float32",
            chunk=tuple(value["chunk"]),
            columns=tuple(value["columns"]),
            detail=value.get("detail", {}),
        )
