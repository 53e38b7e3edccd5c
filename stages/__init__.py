"""What is done. The table of stages: a name → where its record stands, imported when it is needed."""

from importlib import import_module

from ..manifests.errors import ConfigError
from .stage import Stage

STAGES: dict[str, str | Stage] = {
    "index": ".index.stage",
    "extract": ".extract.stage",
    "pixels": ".pixels.stage",
    "mask": ".mask.stage",
    "enhance": ".enhance.stage",
    "refine": ".refine.stage",
    "manifest": ".manifest.stage",
}


def find_stage(name: str) -> Stage:
    """The record of a stage by its name."""
    found = STAGES.get(name)
    if found is None:
        raise ConfigError(
            f"there is no stage {name!r}, only {sorted(STAGES)}; use the version of maskmill that wrote it"
        )
    return found if isinstance(found, Stage) else import_module(found, __name__).STAGE
