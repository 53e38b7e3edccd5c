"""Checkpoint artifacts: trained parameters, and the ids whose labels or masks were used in training.

weights.safetensors  the parameters
seen.json            {"labels": {"fitting": [ids], "stopping": [ids]}, "masks": {…}}

A cross-fitted checkpoint holds several networks. Its `networks` list records what each network has seen and which ids
it is held out for; each of those ids is scored by the network that has not seen its mask.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from ..errors import CorruptArtifact
from ..files.sealed import Json
from .artifact import Artifact

WEIGHTS, SEEN = "weights.safetensors", "seen.json"


@dataclass(frozen=True, slots=True)
class SeenByNetwork:
    """Ids used to train one network (fitting, early stopping), and the ids that only other networks have seen."""

    fitting: Sequence[str]
    stopping: Sequence[str]
    held_out: Sequence[str]


def training_ids(
    checkpoint: Artifact, what: Literal["labels", "masks"], purposes: Collection[str] = ("fitting", "stopping")
) -> frozenset[str]:
    """Ids whose labels or masks were used for fitting or early stopping."""
    try:
        seen = json.loads(checkpoint.file(SEEN))[what]
        return frozenset(identifier for purpose, ids in seen.items() if purpose in purposes for identifier in ids)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise CorruptArtifact(f"{checkpoint.place.path(SEEN)} lists no {what} ({error!r}); train it again") from error


def network_by_held_out_id(checkpoint: Artifact) -> dict[str, int]:
    """Id → number of the network that has not seen its mask."""
    try:
        networks = json.loads(checkpoint.file(SEEN)).get("networks", [])
        return {identifier: number for number, seen in enumerate(networks) for identifier in seen["held_out"]}
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise CorruptArtifact(
            f"{checkpoint.place.path(SEEN)} does not say what each network has seen ({error!r}); train it again"
        ) from error


def ids_seen_in_training(checkpoint: Artifact) -> frozenset[str]:
    """Ids whose masks the network that scores them was trained on."""
    return training_ids(checkpoint, "masks") - frozenset(network_by_held_out_id(checkpoint))


def training_ids_json(
    labels_fitting: list[str], labels_stopping: list[str], masks_fitting: list[str], masks_stopping: list[str]
) -> bytes:
    labels = {"fitting": labels_fitting, "stopping": labels_stopping}
    return _json_bytes({"labels": labels, "masks": {"fitting": masks_fitting, "stopping": masks_stopping}})


def networks_seen_json(networks: Sequence[SeenByNetwork]) -> bytes:
    """seen.json of a cross-fitted checkpoint, whose networks have seen no labels."""
    masks = {
        "fitting": sorted({identifier for network in networks for identifier in network.fitting}),
        "stopping": sorted({identifier for network in networks for identifier in network.stopping}),
    }
    labels: dict[str, list[str]] = {"fitting": [], "stopping": []}
    return _json_bytes({"labels": labels, "masks": masks, "networks": [asdict(network) for network in networks]})


def _json_bytes(seen: dict[str, Json]) -> bytes:
    return json.dumps(seen, ensure_ascii=False, sort_keys=True).encode()
