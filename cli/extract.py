"""`maskmill extract IMAGES`."""

from typing import Any

import click

from ..manifests.files.place import place
from .options import run_stage, stage_options, with_options


class SizeType(click.ParamType[tuple[int, int]]):
    """S, or HxW."""

    name = "S|HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        rows, cross, columns = str(value).lower().partition("x")
        if not rows.isdecimal() or (cross and not columns.isdecimal()):
            self.fail(
                f"{value!r} is no size; write a side such as 224, or rows and columns such as 384x512", param, ctx
            )
        return int(rows), int(columns or rows)


EXTRACT = with_options(
    click.option("--backbone", metavar="NAME", required=True, help="timm's name, such as vit_small_patch8_224.dino."),
    click.option(
        "--weights",
        metavar="FILE|CHECKPOINT",
        default="",
        help="safetensors, a torch checkpoint of tensors, or a checkpoint artifact; timm's own if left out; "
        "random:SEED to try things out.",
    ),
    click.option("--image-size", type=SizeType(), help="Of the view, whole patches; the backbone's own if left out."),
    click.option(
        "--fit",
        type=click.Choice(["pad", "squash"]),
        default="pad",
        show_default=True,
        help="Keep the aspect and pad, or ignore it (as CST does).",
    ),
    click.option("--flip", is_flag=True, help="Mirror the pictures: a second view, to be merged with the first."),
    click.option(
        "--fields",
        default="keys,cls_query",
        show_default=True,
        help="keys, cls_query, cls_attention[:BLOCKS], tokens[:BLOCKS], support_tokens[:BLOCKS]; "
        "BLOCKS is last, all, 8-11 or 3+7+11.",
    ),
    click.option("--dtype", type=click.Choice(["float16", "float32", "int8"]), default="float16", show_default=True),
    click.option(
        "--positions",
        type=click.Choice(["auto", "dino", "timm"]),
        default="auto",
        show_default=True,
        help="How position embeddings are resampled; auto is DINO's way for DINO's weights.",
    ),
    click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:NUMBER."),
    click.option(
        "--autocast",
        type=click.Choice(["off", "bfloat16", "float16"]),
        default="off",
        show_default=True,
        help="Compute in a shorter type: faster on CUDA, less exact.",
    ),
    click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Pictures computed at once."),
)


@click.command()
@click.argument("images")
@EXTRACT
@stage_options
def extract(
    images: str,
    backbone: str,
    weights: str,
    image_size: tuple[int, int] | None,
    fit: Any,
    flip: bool,
    fields: str,
    dtype: Any,
    positions: Any,
    device: str,
    autocast: Any,
    batch: int,
    **values: Any,
) -> int:
    """Run a backbone over the pictures of IMAGES, an images artifact, and keep what the later stages read."""
    from ..stages.extract.stage import STAGE, extract_config

    config = extract_config(
        backbone=backbone,
        weights=weights,
        image_size=image_size,
        fit=fit,
        flip=flip,
        fields=fields.split(","),
        dtype=dtype,
        positions=positions,
        autocast=autocast,
        batch=batch,
        device=device,
    )
    return run_stage(STAGE, config, {"images": place(images).uri}, values)
