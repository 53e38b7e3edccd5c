"""The package's own backbone, registered with timm, so that everything runs offline. `builtin` is its alias. See
MODEL_CARD.md for its training and scores."""

from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

BUILTIN = "builtin"
NAME = "maskmill_vit_d5_patch8_128.caltech128"
WEIGHTS_FILE = Path(__file__).with_name("weights.safetensors")

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's

default_cfgs = generate_default_cfgs(
    {
        NAME: {
            "file": str(WEIGHTS_FILE),
            "license": "cc-by-4.0",
            "input_size": (3, 128, 128),
            "num_classes": 0,
            "pool_size": None,
            "interpolation": "bicubic",
            "mean": _MEAN,
            "std": _STD,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
    }
)


@register_model
def maskmill_vit_d5_patch8_128(pretrained: bool = False, **options: Any) -> Any:
    """Five blocks of width 384 with 704 units in each MLP: 5.8 million parameters. The last one changes no token."""
    shape: dict[str, Any] = {
        "img_size": 128,
        "patch_size": 8,
        "embed_dim": 384,
        "depth": 5,
        "mlp_ratio": 704 / 384,
        "num_heads": 6,
        "num_classes": 0,
    }
    return build_model_with_cfg(
        VisionTransformer,
        "maskmill_vit_d5_patch8_128",
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,  # timm finds it by this name for other weights too
        **(shape | options),
    )


def full_backbone_name(backbone: str) -> str:
    """timm's name of a backbone."""
    return NAME if backbone == BUILTIN else backbone
