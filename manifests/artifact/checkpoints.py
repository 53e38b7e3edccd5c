"""Checkpoint artifacts: anything trained, and the images whose labels or masks it has seen.

weights.safetensors  the parameters
seen.json            {"labels": {"fitting": [ids], "stopping": [ids]}, "masks": {…}}: what was used for what

One of several networks that were fitted on the masks of different pictures says under `networks`, too, what each has
seen, and which pictures it is held out for: whoever uses the checkpoint scores each of those by the network that has
not seen its mask.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from ..errors import CorruptArtifact
from .artifact import Artifact

WEIGHTS, SEEN = "weights.safetensors", "seen.json"


@dataclass(frozen=True, slots=True)
class SeenByNetwork:
    """The pictures whose masks a network was fitted or stopped on, and those that only others have seen."""

    fitting: Sequence[str]
    stopping: Sequence[str]
    held_out: Sequence[str]


def training_ids(
    checkpoint: Artifact, what: Literal["labels", "masks"], purposes: Collection[str] = ("fitting", "stopping")
) -> frozenset[str]:
    """The images whose labels or masks something was fitted or stopped on."""
    try:
        seen = json.loads(checkpoint.file(SEEN))[what]
        return frozenset(identifier for purpose, ids in seen.items() if purpose in purposes for identifier in ids)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise CorruptArtifact(f"{checkpoint.place.path(SEEN)} lists no {what} ({error!r}); train it again") from error


def network_by_held_out_id(checkpoint: Artifact) -> dict[str, int]:
    """Id → the network that has not seen its mask, of the pictures that others have."""
    try:
        networks = json.loads(checkpoint.file(SEEN)).get("networks", [])
        return {identifier: number for number, seen in enumerate(networks) for identifier in seen["held_out"]}
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise CorruptArtifact(
            f"{checkpoint.place.path(SEEN)} does not say what each network has seen ({error!r}); train it again"
        ) from error


def ids_seen_in_training(checkpoint: Artifact) -> frozenset[str]:
    """The images whose masks were seen by whatever scores them."""
    return training_ids(checkpoint, "masks") - frozenset(network_by_held_out_id(checkpoint))


def training_ids_json(
    labels_fitting: list[str], labels_stopping: list[str], masks_fitting: list[str], masks_stopping: list[str]
) -> bytes:
    seen = {
        "labels": {"fitting": labels_fitting, "stopping": labels_stopping},
        "masks": {"fitting": masks_fitting, "stopping": masks_stopping},
    }
    return json.dumps(seen, ensure_ascii=False, sort_keys=True).encode()


def networks_seen_json(networks: Sequence[SeenByNetwork]) -> bytes:
    """The same of several networks, none of which has seen labels."""
    masks = {
        "fitting": sorted({each for seen in networks for each in seen.fitting}),
        "stopping": sorted({each for seen in networks for each in seen.stopping}),
    }
    seen = {
        "labels": {"fitting": [], "stopping": []},
        "masks": masks,
        "networks": [asdict(each) for each in networks],
    }
    return json.dumps(seen, ensure_ascii=False, sort_keys=True).encode()
