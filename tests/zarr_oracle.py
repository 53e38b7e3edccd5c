"""Zarr's own reader of a stored field, to compare this package's reader of shards with."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from maskmill.manifests.artifact.fields import Field
from maskmill.manifests.files.place import Place


def read_slots(at: Place, field: Field, slots: Sequence[int]) -> np.ndarray:
    """Rows by slot, in the order of `slots`, as Zarr reads them; a missing chunk is the fill value."""
    folder = at.join(f"{field.name}.zarr")
    buffer = default_buffer_prototype().buffer
    files = {name: buffer.from_bytes(folder.read(name)) for name in folder.names()}
    array: Any = zarr.open_array(MemoryStore(files, read_only=True), mode="r", zarr_format=3)
    return np.asarray(array.oindex[np.asarray(slots, np.int64)])
