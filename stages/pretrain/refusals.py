"""Options that cannot work with the stored pictures, refused before anything is computed."""

from ...manifests.artifact.pixels import Pixels
from ...manifests.counts import count_of
from ...manifests.errors import ConfigError
from ...manifests.files.torchrun import num_processes
from ..vision.backbone import backbone_facts
from .config import PretrainConfig, refuse_unused_options


def refuse_unworkable_settings(config: PretrainConfig, pixels: Pixels, count: int, distills: bool = False) -> None:
    """`count` pictures can be learned from."""
    refuse_unused_options(config, distills)
    rows_px, columns_px = pixels.size
    if rows_px != columns_px:
        raise ConfigError(
            f"{pixels.artifact.place} holds pictures of {rows_px}x{columns_px}, expected square ones; make them with "
            f"`maskmill pixels --image-size {min(rows_px, columns_px)}`"
        )
    _refuse_patches(config, distills)
    _refuse_larger_views(config, pixels, distills)
    _refuse_processes(config)
    if count < config.batch:
        raise ConfigError(
            f"{pixels.artifact.place} holds {count_of(count, 'usable picture')}, fewer than --batch {config.batch}; "
            "choose a smaller --batch, or index more pictures"
        )


def _refuse_patches(config: PretrainConfig, distills: bool) -> None:
    patch_rows, patch_columns = backbone_facts(config.backbone, config.global_size, config.global_size).patch
    if patch_rows != patch_columns:
        raise ConfigError(
            f"--backbone {config.backbone} has patches of {patch_rows}x{patch_columns}; choose one with square patches"
        )
    if distills:
        return
    if config.smaller_views and config.local_size % patch_rows:
        raise ConfigError(
            f"--local-size {config.local_size} is not a multiple of {config.backbone}'s patch size; choose a multiple "
            f"of {patch_rows}"
        )
    if config.align and config.global_size % config.align:
        raise ConfigError(
            f"--align {config.align} does not divide --global-size {config.global_size}; choose a divisor, or 0 for "
            "the patch size"
        )


def _refuse_larger_views(config: PretrainConfig, pixels: Pixels, distills: bool) -> None:
    for option, size, is_used in (
        ("--global-size", config.global_size, True),
        ("--local-size", config.local_size, config.smaller_views > 0 and not distills),
    ):
        if is_used and size > pixels.size[0]:
            raise ConfigError(
                f"{option} {size} exceeds the {pixels.size[0]} pixels of the pictures in {pixels.artifact.place}; "
                f"choose a smaller view, or make larger pictures with `maskmill pixels --image-size {size}`"
            )


def _refuse_processes(config: PretrainConfig) -> None:
    if config.batch % num_processes():
        raise ConfigError(
            f"--batch {config.batch} does not divide evenly over the {num_processes()} processes of torchrun; choose a "
            f"multiple of {num_processes()}"
        )
    if num_processes() > 1 and config.device.startswith("cuda:"):
        raise ConfigError(
            f"--device {config.device} is one device, and torchrun started {num_processes()} processes; choose cuda, "
            "so that each process takes its own"
        )
