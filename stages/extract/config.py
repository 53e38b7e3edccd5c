"""Options of `extract`."""

from dataclasses import dataclass
from typing import Literal

from ...manifests.artifact.config import check_config, checks_itself, field_for_resolve, option
from ..choices import DEVICE_HELP, SIZE_HELP, WEIGHTS_HELP, Autocast, Fit, Positions, Size
from ..command import Command, Role

Dtype = Literal["float16", "float32", "int8"]


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractConfig:
    backbone: str = option(help="Name in timm, such as vit_small_patch8_224.dino, or builtin.", metavar="NAME")
    weights: str = option(
        "", WEIGHTS_HELP, metavar="FILE|CHECKPOINT", path="weights", changes_bytes=False, is_kept=True
    )
    weights_sha256: str = field_for_resolve("")
    image_size: Size = option(None, SIZE_HELP, metavar="S|HxW")
    fit: Fit = option("pad", "Keep the aspect ratio and pad, or squash (as CST does).")
    flip: bool = option(False, "Mirror the pictures: a second view, to merge with the first in `mask`.")
    # Once resolved: as `explicit_fields` writes them.
    fields: tuple[str, ...] = option(
        ("keys", "cls_query"),
        "Token fields: keys, cls_query, cls_attention[:BLOCKS], tokens[:BLOCKS], support_tokens[:BLOCKS]; BLOCKS is "
        "last, all, 8-11 or 3+7+11.",
        metavar="FIELD,…",
    )
    dtype: Dtype = option("float16", "Type of stored values.")
    positions: Positions = option(
        None, "Resampling of position embeddings; auto is dino for DINO's weights, else timm.", open_word="auto"
    )
    autocast: Autocast = option("off", "Compute in a shorter type: faster on CUDA, less exact.")
    subtracts_key_bias: bool = field_for_resolve(False, is_new=True)  # before keys become int8
    batch: int = option(16, "Pictures computed at once.", at_least=1)
    device: str = option("cpu", DEVICE_HELP, changes_bytes=False, is_kept=True)  # its type is in the fingerprint

    def __post_init__(self) -> None:
        check_config(self)


EXTRACT = Command(
    name="extract",
    makes="tokens",
    config=ExtractConfig,
    work=".extract.stage:STAGE",
    roles={"images": Role(kind="images", metavar="IMAGES", help="Images artifact.")},
    help="This is the only stage that runs the backbone; later stages read its tokens.",
)
