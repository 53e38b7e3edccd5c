"""Says when scores are no better than a guess that sees no picture."""

from collections.abc import Mapping

from ...manifests.files.sealed import Json

NO_OBJECTS = "background everywhere"  # name of the floor of a student that is told no class
FEWEST_PICTURES = 10  # fewer tell nothing: one picture more or less moves every score


def find_floor(
    score: Mapping[str, Json], floors: Mapping[str, Mapping[str, Json]], pictures: int
) -> tuple[str, float] | None:
    """The best floor, and its name, if the score is not above it. `score` and the floors, by name, are intervals as in
    metrics.json. None for an undefined score, and on too few pictures, which tell nothing."""
    if pictures < FEWEST_PICTURES or score["low"] is None or not floors:
        return None
    name = max(floors, key=lambda name: floors[name]["estimate"] or 0.0)
    floor = floors[name]["estimate"] or 0.0
    return None if score["low"] > floor else (name, floor)


def floor_warnings(
    score: Mapping[str, Json], floors: Mapping[str, Mapping[str, Json]], pictures: int, cure: str
) -> list[str]:
    """A warning, with what to do, if the score is at its floor."""
    best = find_floor(score, floors, pictures)
    if best is None:
        return []
    name, floor = best
    interval = f"{score['low']:.3f} to {score['high']:.3f}"
    return [f"mIoU {score['estimate']:.3f} ({interval}) is not above the floor {floor:.3f} ({name}); {cure}"]
