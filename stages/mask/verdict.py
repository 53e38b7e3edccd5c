"""Says when the maps of a finished run can hardly be good."""

from collections.abc import Iterator, Mapping

import pyarrow as pa

from ...manifests.artifact.facts import MapsFacts
from ...manifests.files.sealed import Json
from ..maps.object_classes import NO_LABEL, NO_STRUCTURE
from ..maps.threshold_rules import PAPER_THRESHOLD, PAPER_WEIGHTS, is_paper_weights
from .computing import NO_INSTANCE
from .config import MaskConfig

NEARLY_ALL, NEARLY_NONE, WARNED_SHARE = 0.95, 0.01, 0.2


def warn(config: MaskConfig, facts: Mapping[str, Json], batches: Iterator[pa.RecordBatch]) -> list[str]:
    """A wrong threshold gives masks of nearly everything or nearly nothing; a wrong tau gives graphs without a cut."""
    warnings = []
    source = MapsFacts.from_json(facts).weights.source
    if config.method == "cst" and config.threshold == PAPER_THRESHOLD and not is_paper_weights(source):
        warnings.append(
            f"threshold 0.4 belongs to {PAPER_WEIGHTS}.pth (DINO's ViT-S/8 of 300 epochs, as in CST), but these tokens "
            f"are of {source}; choose --threshold otsu, or extract with that file"
        )
    total = extreme = uncut = 0
    for batch in batches:
        columns = (batch.column(name).to_pylist() for name in ("status", "note", "foreground"))
        for status, note, share in zip(*columns, strict=True):
            if status == "ok" and note not in (NO_LABEL, NO_INSTANCE):
                total += 1
                is_uncut = config.tau is not None and note == NO_STRUCTURE
                uncut += is_uncut
                extreme += not is_uncut and (share > NEARLY_ALL or share < NEARLY_NONE)
    if uncut > WARNED_SHARE * total:
        warnings.append(
            f"{uncut} of {total} maps ({uncut / total:.0%}) have no cut (note {NO_STRUCTURE}): tau {config.tau:g} does "
            "not separate their keys; try another --tau, a higher one if all keys agree"
        )
    if extreme > WARNED_SHARE * total:
        warnings.append(
            f"{extreme} of {total} maps ({extreme / total:.0%}) are above the threshold, {config.threshold}, on more "
            "than 95 % or less than 1 % of the picture; try another --threshold"
        )
    return warnings
