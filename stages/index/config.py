"""Options of `index`."""

from dataclasses import dataclass

from ...manifests.artifact.config import check_config, checks_itself, option
from ...manifests.datasets.layouts import DatasetSource, FolderSource, VocSource
from ...manifests.pictures.limits import DEFAULT_LIMITS, Limits
from ..command import Command


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class IndexConfig:
    source: DatasetSource
    limits: Limits = option(DEFAULT_LIMITS)

    def __post_init__(self) -> None:
        check_config(self)

    @property
    def may_have_masks(self) -> bool:
        return bool(self.source.masks) if isinstance(self.source, VocSource | FolderSource) else True


INDEX = Command(name="index", makes="images", config=IndexConfig, work=".index.stage:STAGE", follows_source=True)
