"""Rows that a user asks for by id, and the sentence for one that cannot be given."""

from collections.abc import Sequence

from ..errors import InputError
from .artifact import Artifact


def ok_row_positions(artifact: Artifact, ids: Sequence[str], what: str) -> list[int]:
    """Where the rows of ids stand in the row list; an unknown id raises, and so does one whose row holds no `what`."""
    try:
        positions = artifact.positions(ids) if ids else []
    except KeyError as error:
        raise InputError(f"{error.args[0]}; `rows` lists the ids that there are") from error
    failures = artifact.failures()
    for identifier, position in zip(ids, positions, strict=True):
        if position in failures:
            raise InputError(
                f"{artifact.place} has no {what} of {identifier!r}, which failed ({failures[position]}); "
                "leave out the rows whose status is not ok"
            )
    return positions
