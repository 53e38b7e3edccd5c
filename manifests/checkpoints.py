"""Checkpoint artifacts: anything trained, and the images whose labels or masks it has seen.

weights.safetensors  the parameters
seen.json            {"labels": {"fitting": [ids], "stopping": [ids]}, "masks": {…}}: what was used for what
"""

import json
from typing import Literal

from .artifact import Artifact
from .errors import CorruptArtifact

WEIGHTS, SEEN = "weights.safetensors", "seen.json"


def seen_ids(checkpoint: Artifact, what: Literal["labels", "masks"]) -> frozenset[str]:
    """The images whose labels or masks something was fitted or stopped on."""
    try:
        seen = json.loads(checkpoint.file(SEEN))[what]
        return frozenset(identifier for ids in seen.values() for identifier in ids)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise CorruptArtifact(f"{checkpoint.place.path(SEEN)} lists no {what} ({error!r}); train it again") from error


def seen_json(
    labels_fitting: list[str], labels_stopping: list[str], masks_fitting: list[str], masks_stopping: list[str]
) -> bytes:
    seen = {
        "labels": {"fitting": labels_fitting, "stopping": labels_stopping},
        "masks": {"fitting": masks_fitting, "stopping": masks_stopping},
    }
    return json.dumps(seen, ensure_ascii=False, sort_keys=True).encode()
