"""The pictures of an images artifact: read from where they were indexed, and only if they are what was indexed.

Letters: H W pixels.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from ..artifact.artifact import Artifact
from ..artifact.config import config_from
from ..artifact.facts import ImagesFacts
from ..errors import Reason, RowFailed
from ..files.sealed import Json
from .careful import decode_carefully
from .decoder import decode_picture
from .limits import Limits
from .sources import read_source


@dataclass(frozen=True, slots=True)
class IndexedPictures:
    """Where pictures lie and the limits under which they were indexed. Raises RowFailed for a picture that cannot be
    had; `row` is its row of the images artifact, with uri and sha256."""

    root: str
    limits: Limits

    @classmethod
    def of(cls, images: Artifact, root: str = "") -> "IndexedPictures":
        """`root` replaces the folder or URL that was indexed."""
        return cls(root or ImagesFacts.of(images).root, config_from(Limits, images.plan.config["limits"]))

    def read(self, row: Mapping[str, Json]) -> bytes:
        """The picture's own file."""
        data = read_source(self.root, row["uri"])
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise RowFailed(Reason.CHANGED)
        return data

    def load(self, row: Mapping[str, Json], careful: bool = False) -> UInt8[np.ndarray, "H W 3"]:
        """The picture, decoded; `careful` decodes in a process of its own, which a broken file may kill."""
        data = self.read(row)
        return decode_carefully(data, self.limits) if careful else decode_picture(data, self.limits)[0]
