"""Says when scores are no better than a guess that sees no picture."""

from collections.abc import Mapping

from ...manifests.files.sealed import Json

FEWEST_PICTURES = 10  # fewer tell nothing: one picture more or less moves every score


def floor_warnings(
    score: Mapping[str, Json], floors: Mapping[str, Mapping[str, Json]], pictures: int, cure: str
) -> list[str]:
    """`score` and the floors, by name, are intervals as in metrics.json. Silent on too few pictures."""
    if pictures < FEWEST_PICTURES or score["low"] is None or not floors:
        return []
    name = max(floors, key=lambda name: floors[name]["estimate"] or 0.0)
    floor = floors[name]["estimate"] or 0.0
    if score["low"] > floor:
        return []
    interval = f"{score['low']:.3f} to {score['high']:.3f}"
    return [f"mIoU {score['estimate']:.3f} ({interval}) is not above the floor {floor:.3f} ({name}); {cure}"]
