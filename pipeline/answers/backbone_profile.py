"""What maskmill knows of a backbone: its shape, and how mask methods read its tokens by default."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...manifests.artifact.facts import BackboneFacts
from ...stages.mask.config import PUBLISHED_SIDES
from ...stages.mask.methods import METHODS
from ...stages.vision.backbone import backbone_facts, training_size
from ...stages.vision.builtin import BUILTIN, full_backbone_name
from ...stages.vision.feature_forms import Feature, parse_feature
from ...stages.vision.key_bias import key_bias
from ...stages.vision.profiles import PROFILES, Family, Profile, family_of
from ...stages.vision.weights import full_name, read_weights

ON_METHODS = "run `mask` on pictures with true masks with each --feature and --side, and compare by `evaluate masks`"


@dataclass(frozen=True, slots=True)
class BackboneProfile:
    facts: BackboneFacts
    family: Family
    profile: Profile
    bias_length: float | None  # of the keys' projection; None without weights

    def lines(self) -> Mapping[str, str]:
        """Name → text, in the order of printing."""
        facts, profile, feature = self.facts, self.profile, self._feature
        lines = {
            "backbone": facts.name,
            "family": self.family,
            "shape": f"{facts.depth} blocks of width {facts.width}, {facts.heads} heads, "
            f"patches of {facts.patch[0]}x{facts.patch[1]} pixels",
            "--positions": profile.positions,
            "--image-size": self._sizes(),
            "--feature": f"{feature}{self._bias_text(feature)}",
            "--side": profile.side
            or ", ".join(f"{side} for {name}" for name, side in PUBLISHED_SIDES.items()) + ", as published",
            "--tau": _list_defaults({method.name: method.default_tau(feature) for method in METHODS.values()}),
            "--threshold": _list_defaults({method.name: method.threshold for method in METHODS.values()}),
            "source": profile.source,
        }
        if not profile.is_measured:
            lines["to do"] = ON_METHODS
        if profile.weakness:
            lines["weakness"] = f"{profile.weakness}; train a student on a few true masks, or choose another backbone"
        return lines

    @property
    def _feature(self) -> Feature:
        return parse_feature(self.profile.feature_at(self.facts.depth))

    def _sizes(self) -> str:
        """The profile's range as whole patches."""
        patch = max(self.facts.patch)
        low, high = (round(size / patch) * patch for size in self.profile.sizes_px)
        return f"{low} to {high}, in steps of {patch}"

    def _bias_text(self, feature: Feature) -> str:
        if feature.field != "keys" or self.bias_length is None:
            return ""
        return (
            f", after subtracting a bias of length {self.bias_length:.3g}" if self.bias_length else ", without a bias"
        )


def _list_defaults(values: Mapping[str, float | str | None]) -> str:
    """The defaults of the mask methods that have one."""
    return ", ".join(f"{value} for {method}" for method, value in values.items() if value is not None)


def describe_backbone(backbone: str, weights: str = "") -> BackboneProfile:
    """Raises ConfigError for an unknown backbone. Weights are read if they are given, or belong to this package."""
    name = full_backbone_name(backbone)
    facts = backbone_facts(name, *training_size(name))
    if not weights and backbone != BUILTIN:
        family = family_of(full_name(name))
        return BackboneProfile(facts, family, PROFILES[family], None)
    read, state = read_weights(name, weights)
    profile = PROFILES[read.family]
    length = float(np.linalg.norm(key_bias(facts, state, profile.positions)))
    return BackboneProfile(facts, read.family, profile, length)
