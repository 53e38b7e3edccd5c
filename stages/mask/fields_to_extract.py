"""The token fields that a recipe has to extract for a mask method, before any tokens exist."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..vision.backbone import backbone_facts, training_size
from ..vision.builtin import full_backbone_name
from ..vision.feature_forms import Feature, parse_feature
from ..vision.profiles import PROFILES, family_of
from .methods import Method


def fields_to_extract(method: Method, feature: Feature | None, extract: Mapping[str, Any]) -> Sequence[str]:
    """`extract` holds the values of the recipe's [extract]."""
    chosen = feature or _feature_of_backbone(extract)
    return [str(chosen) if name == chosen.field else name for name in method.token_fields(chosen)]


def _feature_of_backbone(extract: Mapping[str, Any]) -> Feature:
    """What patches of the backbone in an [extract] are compared by."""
    backbone = full_backbone_name(extract.get("backbone", ""))
    profile = PROFILES[family_of(backbone, extract.get("weights", ""))]
    depth = backbone_facts(backbone, *training_size(backbone)).depth if profile.feature == "tokens" else 0
    return parse_feature(profile.feature_at(depth))
