"""What each family of backbones is good for: which stored field its patches are compared by, and how. Imports nothing
heavy.

Softmax attention is exactly invariant to the bias of the key projection: it adds the same number to all logits of a
query. So training gives it no gradient, and it is arbitrary. In one ViT-S/14 it is as long as the keys themselves: all
cosines are above 0.56, and no published threshold works until it is subtracted. DINO's published numbers are on raw
keys, so they stay raw there.

Choices marked "measured" are from tests/benchmarks; the others follow publications about these backbones, and
`maskmill doctor --backbone NAME` says so.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ...manifests.artifact.facts import TokensFacts
from ..choices import Positions, Side

Family = Literal[
    "dino", "dinov2", "dinov2-registers", "dinov3", "ibot", "mae", "clip", "supervised", "builtin", "unknown"
]
FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    feature: str = "keys"  # without bias; raw-keys; or tokens
    depth_share: float = 1.0  # of tokens: the last block that is run, as a share of the depth
    side: Side | None = None  # of a cut that counts as the object; None: as the method's authors choose it
    positions: Positions = "timm"
    sizes_px: tuple[int, int] = (384, 518)  # shorter side
    source: str  # of these choices
    is_measured: bool = False
    weakness: str = ""  # why methods that compare patches are poor on it

    def feature_at(self, depth: int) -> str:
        """The text form of the feature for a backbone of this depth."""
        if self.feature != "tokens":
            return self.feature
        return f"tokens:{max(0, round(depth * self.depth_share) - 1)}"


PROFILES: Mapping[Family, Profile] = {
    "dino": Profile(
        feature="raw-keys",
        positions="dino",
        sizes_px=(400, 480),
        source="TokenCut, MaskCut and CST, whose published numbers are on raw keys and published sides",
        is_measured=True,
    ),
    "dinov2": Profile(
        side="corners",
        positions="dino",
        sizes_px=(392, 784),
        source="measured on a ViT-S/14 of this architecture that was trained for saliency",
        is_measured=True,
    ),
    "dinov2-registers": Profile(
        side="corners", sizes_px=(392, 784), source="taken over from DINOv2 without registers; not measured"
    ),
    "dinov3": Profile(
        feature="tokens",
        depth_share=5 / 6,
        side="corners",
        sizes_px=(512, 1024),
        source="arXiv 2508.10104 and 2605.29691: tokens of block 10 of 12, 20 of 24, not keys; not measured",
    ),
    "ibot": Profile(
        feature="tokens",
        depth_share=3 / 4,
        side="corners",
        sizes_px=(400, 480),
        source="arXiv 2605.29691: tokens of block 9 of 12, not keys; not measured",
    ),
    "mae": Profile(
        side="corners",
        source="arXiv 2605.29691; not measured",
        weakness="patches of MAE hardly cluster by object, whatever field is compared",
    ),
    "clip": Profile(side="corners", source="arXiv 2605.29691: keys as good as tokens; not measured"),
    "supervised": Profile(side="corners", source="no publication; not measured"),
    "builtin": Profile(side="corners", sizes_px=(64, 224), source="its model card", is_measured=True),
    "unknown": Profile(source="none: keys without bias, and the methods' published constants"),
}

# Words in timm's name or in the name of a weights file; the first that fits counts. DINO's files begin with dino_.
_BY_NAME: tuple[tuple[str, Family], ...] = (
    (r"^maskmill_vit", "builtin"),
    (r"dinov3", "dinov3"),
    (r"reg\d*_dinov2|dinov2_.*reg|dinov2.*with_registers", "dinov2-registers"),
    (r"dinov2", "dinov2"),
    (r"ibot", "ibot"),
    (r"\.dino$|^dino_", "dino"),
    (r"(\.|_|^)mae(_|\.|$)", "mae"),
    (r"clip|siglip", "clip"),
    (r"\.(augreg|in1k|in21k|in22k|fb_in1k|sam_in1k|orig_in21k)|(^|\.)deit", "supervised"),
)


def family_of(backbone: str, weights: str = "", own_family: str = "") -> Family:
    """The family by the weights' own metadata, else by the name of their file, else by timm's name of the backbone.
    Random weights have none."""
    if weights.startswith("random:"):
        return "unknown"
    for family in FAMILIES:
        if family == own_family:
            return family
    for name in filter(None, (os.path.basename(weights), backbone)):
        for word, family in _BY_NAME:
            if re.search(word, name):
                return family
    return "unknown"


def family_of_tokens(facts: TokensFacts) -> Family:
    """Tokens that were stored before the family was recorded tell it by their names."""
    return family_of(facts.backbone.name, facts.weights.source, facts.family)
