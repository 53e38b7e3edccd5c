"""How shots and ways are put together, with a learner whose answers are numbers in the supports' tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskmill.stages.evaluate.answering import Answerer
from maskmill.stages.students.episodes import Episode
from maskmill.stages.students.features import FeatureBatch, Features, FeatureSpec
from maskmill.stages.students.learner import Learner, Logits

SIGHT = FeatureSpec(
    backbone="toy",
    weights_sha256="",
    positions="timm",
    size_px=(8, 8),
    fit="squash",
    blocks=(3, 1),
    heads=2,
    width=4,
    grid=(2, 2),
    patch=(4, 4),
)
LOGITS = {"sure": 2.0, "against": -1.2, "weak": 0.3, "no": -0.1, "left": 3.0}


class Said(Learner):
    """Says of a pair what the support's first patch holds: everywhere, or in the left half alone."""

    def forward_tokens(
        self, query_tokens: Any, support_tokens: Any, support_mask: Any, grid: Any, heads: Any
    ) -> Logits:
        self.masks = [*getattr(self, "masks", []), support_mask]
        value_B = support_tokens[:, 0, 1, 0].float()
        left_B = support_tokens[:, 0, 1, 1].float()
        half_B4 = torch.stack([value_B, value_B, value_B - left_B, value_B - left_B], dim=1)
        pixels = half_B4[:, None, None, :].expand(-1, 1, 4, 4)
        return Logits(
            torch.stack([torch.zeros_like(value_B), value_B], dim=1), torch.cat([torch.zeros_like(pixels), pixels], 1)
        )


class Given:
    sight, where = SIGHT, "toys"

    def require(self, ids: Sequence[str]) -> None: ...

    def read(self, ids: Sequence[str], fields: Sequence[str]) -> FeatureBatch:
        tokens = torch.zeros(len(ids), 2, 5, 4)
        for place, identifier in enumerate(ids):
            tokens[place, 0, 1, 0] = LOGITS.get(identifier, 0.0)
            tokens[place, 0, 1, 1] = 9.0 if identifier == "left" else 0.0
            tokens[place, :, 0, :] = torch.tensor([1.0, len(identifier), 0, 0])
        return FeatureBatch(dict.fromkeys(fields, tokens), ((0, 0, 8, 8),) * len(ids))


def masks(supports: Sequence[str], label: int, fields: Any) -> Tensor:
    return torch.full((len(supports), 8, 8), label == 7)


def answered(*supports: tuple[str, ...]) -> tuple[Any, Said]:
    learner, features = Said(4), Given()
    assert isinstance(features, Features)
    episode = Episode("query", tuple(7 + way for way in range(len(supports))), supports, (True,) * len(supports))
    return Answerer(learner, features, masks, False, torch.device("cpu")).answer(episode, (5, 6)), learner


def share(*logits: float) -> float:
    return float(np.mean([1 / (1 + np.exp(-each)) for each in logits]))


def test_the_mean_of_the_shots_probabilities_decides() -> None:
    """Not the first."""
    found, _ = answered(("against", "sure"))
    assert found.probabilities == pytest.approx((share(-1.2, 2.0),))
    assert found.decisions == (True,)
    assert (found.painted_UV == 1).all()
    found, _ = answered(("sure", "against", "against"))
    assert found.probabilities == pytest.approx((share(2.0, -1.2, -1.2),))
    assert found.decisions == (False,)
    assert (found.painted_UV == 0).all()


def test_the_most_probable_way_is_painted_where_it_reaches_a_half() -> None:
    """Presence of the ways is decided for each by itself."""
    found, _ = answered(("weak",), ("left",))
    assert found.decisions == (True, True)
    assert found.painted_UV.shape == (5, 6)
    assert set(found.painted_UV[:, 0].tolist()) == {2}
    assert set(found.painted_UV[:, -1].tolist()) == {1}
    found, _ = answered(("no",), ("against",))
    assert found.decisions == (False, False)
    assert not found.painted_UV.any()


def test_each_way_is_looked_at_through_its_own_masks() -> None:
    _, learner = answered(("sure", "weak"), ("no", "left"))
    assert [(len(each), bool(each.any()), bool(each.all())) for each in learner.masks] == [
        (2, True, True),
        (2, False, False),
    ]


def test_similarity_is_of_the_class_tokens_of_the_last_block_read() -> None:
    found, _ = answered(("no", "left"))
    query = np.array([1.0, len("query"), 0, 0])
    others = [np.array([1.0, len(each), 0, 0]) for each in ("no", "left")]
    cosines = [query @ each / np.linalg.norm(query) / np.linalg.norm(each) for each in others]
    assert found.similarities == pytest.approx((np.mean(cosines),))
