"""Looks up rows by id, with a clear error for an unknown or failed row."""

from collections.abc import Sequence

from ..errors import InputError
from .artifact import Artifact


def ok_row_positions(artifact: Artifact, ids: Sequence[str], what: str) -> list[int]:
    """Positions of ids in the row list; raises InputError for an unknown id or a failed row, which has no `what`."""
    try:
        positions = artifact.positions(ids) if ids else []
    except KeyError as error:
        raise InputError(f"{error.args[0]}; `rows` lists the known ids") from error
    failures = artifact.failures()
    for identifier, position in zip(ids, positions, strict=True):
        if position in failures:
            raise InputError(
                f"{artifact.place} has no {what} of {identifier!r}, which failed ({failures[position]}); "
                "leave out the rows whose status is not ok"
            )
    return positions
