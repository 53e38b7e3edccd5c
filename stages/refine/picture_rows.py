"""The rows of a labels artifact: one per picture, with the positions of its maps."""

from collections.abc import Iterator, Mapping

import pyarrow as pa

from ...manifests.artifact import tables
from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import class_table
from ...manifests.classes import refuse_other_class_table
from ...manifests.errors import ConfigError
from ..maps.cutting import has_classes

LISTED: Mapping[str, str] = {"id": "string", "maps": "ints", "class_maps": "ints"}  # positions in their row lists


def picture_rows(maps: Artifact, images: Artifact, class_maps: Artifact | None) -> Iterator[pa.RecordBatch]:
    """One row per picture, in the order of the maps. Raises ConfigError for artifacts of other datasets."""
    by_id = maps.positions_by_id()
    others = class_maps.positions_by_id() if class_maps is not None else {}
    identifiers = list(by_id)
    try:
        images.positions(identifiers)
    except KeyError as error:
        raise ConfigError(
            f"{error.args[0]}, but {maps.place} has maps of it; pass as --images the images they were made from"
        ) from error
    _refuse_other_classes(maps, images)
    if class_maps is not None:
        _refuse_other_classes(maps, class_maps)
        if others.keys().isdisjoint(identifiers):
            raise ConfigError(
                f"{class_maps.place} has no map of any picture of {maps.place}; "
                "pass as --class-maps maps of the same pictures"
            )
    schema = tables.schema_of(LISTED)
    for start in range(0, len(identifiers), tables.ROW_GROUP):
        ids = identifiers[start : start + tables.ROW_GROUP]
        columns = {"id": ids, "maps": [by_id[i] for i in ids], "class_maps": [others.get(i, []) for i in ids]}
        yield pa.RecordBatch.from_pydict(columns, schema)


def refuse_objects(maps: Artifact) -> None:
    """Maps of objects without class have no thresholds by class."""
    if not has_classes(maps):
        raise ConfigError(
            f"--threshold is given for a class, but {maps.place} has maps of objects without class; give one score"
        )


def _refuse_other_classes(maps: Artifact, other: Artifact) -> None:
    where, remedy = (maps.place, other.place), "give artifacts of one class table"
    refuse_other_class_table(class_table(maps), class_table(other), where, remedy, ConfigError)
