"""The learner answers an episode: one pair for each way and shot, at the size of the query picture.

Letters: B pairs, K shots, N ways, L blocks, D width of a token, U V pixels of the query picture.

Source: CST, model/cst.py:159-190. The mean of the shots' probabilities decides; the two answers do not gate each other.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..students.episodes import Episode
from ..students.features import Features, FeatureSpec
from ..students.learner import Learner
from ..students.objective import (
    decide_presence,
    decide_ways,
    mean_over_shots,
    pixel_probability,
    probability,
    upsample_logits,
)
from .few_shot_floors import cls_similarity
from .support_masks import PSEUDO_FIELDS, Masks

QUERY, SUPPORT = "tokens", "support_tokens"


@dataclass(frozen=True, slots=True)
class Answer:
    """One entry per way."""

    probabilities: tuple[float, ...]  # that the query shows the class
    decisions: tuple[bool, ...]
    similarities: tuple[float, ...]  # cosines of class tokens, for the floor
    painted_UV: UInt8[np.ndarray, "U V"]  # 0, or 1 + a way


@dataclass(frozen=True, slots=True)
class Answerer:
    learner: Learner
    features: Features
    masks: Masks
    reads_keys: bool  # for the masks of supports
    device: torch.device

    def answer(self, episode: Episode, size: tuple[int, int]) -> Answer:
        """`size` is that of the query picture."""
        query_1LMD = self.features.read([episode.query], [QUERY]).fields[QUERY].to(self.device)
        presence, segmentation, similarities = [], [], []
        for label, supports in zip(episode.classes, episode.supports, strict=True):
            fields = self.features.read(supports, fields_to_read(self.reads_keys)[1:]).fields
            support_KLSD = fields[SUPPORT].to(self.device)
            masks_KIJ = self.masks(supports, label, fields).to(self.device)
            with torch.inference_mode():
                way_presence, way_pixels_UV = self._answer_way(query_1LMD, support_KLSD, masks_KIJ, size)
            presence.append(way_presence)
            segmentation.append(way_pixels_UV)
            similarities.append(similarity(self.features.sight, query_1LMD[0], support_KLSD))
        presence_N = torch.stack(presence)
        decisions_N = decide_presence(presence_N[None])[0]
        painted_UV = decide_ways(torch.stack(segmentation)[None])[0]
        return Answer(
            tuple(presence_N.tolist()), tuple(decisions_N.tolist()), tuple(similarities), painted_UV.cpu().numpy()
        )

    def _answer_way(
        self, query_1LMD: Tensor, support_KLSD: Tensor, masks_KIJ: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """The probability of the class, and of each pixel."""
        sight = self.features.sight
        queries_KLMD = query_1LMD.expand(len(support_KLSD), *query_1LMD.shape[1:])
        logits = self.learner.forward_tokens(queries_KLMD, support_KLSD, masks_KIJ, sight.grid, sight.heads)
        pixels_KUV = pixel_probability(upsample_logits(logits.segmentation, size))
        return mean_over_shots(probability(logits.presence)), mean_over_shots(pixels_KUV)


def similarity(
    sight: FeatureSpec, query_tokens: Float[Tensor, "L M D"], support_tokens: Float[Tensor, "K L S D"]
) -> float:
    """The cosine of the class tokens of the last block that is read; a class token comes first in its block."""
    last = sight.blocks.index(max(sight.blocks))
    query_D, supports_KD = query_tokens[last, 0], support_tokens[:, last, 0]
    return cls_similarity(query_D.float().cpu().numpy(), supports_KD.float().cpu().numpy())


def similarities_of(features: Features, episodes: Iterable[Episode]) -> list[float]:
    """The similarity of each one-way episode, from class tokens alone; reads each picture once."""
    episodes = list(episodes)
    ids = dict.fromkeys(identifier for episode in episodes for identifier in (episode.query, *episode.supports[0]))
    tokens = {identifier: _class_token(features, identifier) for identifier in ids}
    return [
        cls_similarity(tokens[episode.query], np.stack([tokens[support] for support in episode.supports[0]]))
        for episode in episodes
    ]


def fields_to_read(reads_keys: bool) -> Sequence[str]:
    return (QUERY, SUPPORT, *(PSEUDO_FIELDS if reads_keys else ()))


def _class_token(features: Features, identifier: str) -> np.ndarray:
    support_LSD = features.read([identifier], [SUPPORT]).fields[SUPPORT][0]
    last = features.sight.blocks.index(max(features.sight.blocks))
    return np.asarray(support_LSD[last, 0].float())
