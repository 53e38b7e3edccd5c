"""CST's learner: whether the support's class is in the query picture, and where.

Letters: B pairs, L blocks, M class token and patches of the query, T its patches in a grid of R rows and Q columns,
S class token and 12×12 patches of the support, D width of a token, C channels = heads × blocks, E width of a head,
t query patches at a time, s visible support tokens, P support tokens after pooling, I J pixels of the
support's mask, U V the grid of the segmentation's logits, twice the query's. The first of two logits is "absent".

Source: CST (Kang et al., CVPR 2023), model/module/cst.py. Initial weights come from torch's own generator. Every norm
covers one pair alone, so the logits of a pair do not depend on the rest of the batch.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate
from torch.utils.checkpoint import checkpoint

from ..vision.token_fields import SUPPORT_GRID
from .correlation import head_directions
from .mixing import GROUPS, Mixing

# Correlations per piece: 4 MB as float32 fit a CPU's cache; a GPU is faster with few, large pieces.
_AT_ONCE = {"cpu": 2**20}
_AT_ONCE_ELSEWHERE = 2**26
_WIDTHS, _POOLS = (32, 128), (4, 3)

Grid = tuple[int, int]  # rows and columns


@dataclass(frozen=True, slots=True)
class Logits:
    presence: Float32[Tensor, "B 2"]
    segmentation: Float32[Tensor, "B 2 U V"]


class Learner(nn.Module):
    """366,004 parameters for 72 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        side, width = SUPPORT_GRID[0], _WIDTHS[1]
        self.first = Mixing(channels, _WIDTHS[0], side, _POOLS[0])
        self.second = Mixing(_WIDTHS[0], width, side // _POOLS[0], _POOLS[1])
        self.trunk = nn.Sequential(*_trunk(width), *_trunk(width))
        self.presence_patches = _convolutions(width, width, width // 2, kernel=1)
        self.presence = _convolutions(width // 2, width // 2, 2, kernel=1)
        self.segmentation_patches = _convolutions(width, width, width // 2, kernel=3)
        self.segmentation = _convolutions(width // 2, width // 2, 2, kernel=3)

    @property
    def channels(self) -> int:
        return self.first.shortcut.in_channels

    def forward(
        self,
        correlation: Float32[Tensor, "B C T S"],
        support_mask: Bool[Tensor, "B I J"] | Float[Tensor, "B I J"] | None,
        grid: Grid,
    ) -> Logits:
        """`grid` is that of the query. A mask of zeros leaves only the class token; None hides nothing."""
        pooled_BCTP = self.first.pool_tokens(correlation)
        attended = _attend_pairs(self.first, correlation, pooled_BCTP, support_mask)
        return self._compute_logits(self.first.finish_block(attended, pooled_BCTP), support_mask, grid)

    def forward_tokens(
        self,
        query_tokens: Float[Tensor, "B L M D"],
        support_tokens: Float[Tensor, "B L S D"],
        support_mask: Bool[Tensor, "B I J"] | Float[Tensor, "B I J"] | None,
        grid: Grid,
        heads: int,
    ) -> Logits:
        """The same from stored `tokens` and `support_tokens` of any float type, with less memory.

        Correlations are computed for some query patches at a time, with the visible support tokens, and again for the
        gradient. Pooling a correlation equals correlating with the pooled support.
        """
        is_seen_BS = None if support_mask is None else self.first.is_seen(support_mask.float())
        attended, pooled = [], []
        for pair, tokens_LMD in enumerate(query_tokens):
            support_CES = head_directions(support_tokens[pair : pair + 1], heads)[0].mT
            seen_CEs = support_CES if is_seen_BS is None else support_CES[:, :, is_seen_BS[pair]]
            pieces = self._attend_in_pieces(tokens_LMD[:, 1:], seen_CEs, self.first.pool_tokens(support_CES), heads)
            attended.append(pieces[0])
            pooled.append(pieces[1])
        mixed = self.first.finish_block(torch.stack(attended), torch.stack(pooled))
        return self._compute_logits(mixed, support_mask, grid)

    def _attend_in_pieces(
        self,
        query_tokens: Float[Tensor, "L T D"],
        seen: Float32[Tensor, "C E s"],
        pooled: Float32[Tensor, "C E P"],
        heads: int,
    ) -> tuple[Float32[Tensor, "F T P"], Float32[Tensor, "C T P"]]:
        def piece(part_LtD: Tensor) -> tuple[Tensor, Tensor]:
            query_CtE = head_directions(part_LtD[None], heads)[0]
            pooled_CtP = query_CtE @ pooled
            return self.first.attend(query_CtE @ seen, pooled_CtP), pooled_CtP

        at_once = _AT_ONCE.get(seen.device.type, _AT_ONCE_ELSEWHERE)
        # Counts all support tokens, visible or not, so that the pieces do not depend on the mask.
        step = max(1, at_once // (len(seen) * (1 + SUPPORT_GRID[0] * SUPPORT_GRID[1])))
        pieces = [
            checkpoint(piece, part_LtD, use_reentrant=False, preserve_rng_state=False)
            for part_LtD in torch.split(query_tokens, step, dim=1)
        ]
        attended, correlated = zip(*pieces, strict=True)
        return torch.cat(attended, dim=1), torch.cat(correlated, dim=1)

    def _compute_logits(self, mixed: Float32[Tensor, "B O T 10"], support_mask: Tensor | None, grid: Grid) -> Logits:
        batch, _, patches, _ = mixed.shape
        assert patches == grid[0] * grid[1], f"{patches} patches do not fill a grid of {grid[0]}×{grid[1]}"
        pooled = self.second.pool_tokens(mixed)
        attended = _attend_pairs(self.second, mixed, pooled, support_mask)
        trunk_BOT2 = self.trunk(self.second.finish_block(attended, pooled))
        class_maps, patch_maps = (trunk_BOT2[..., token].reshape(batch, -1, *grid) for token in (0, 1))
        halved = avg_pool2d(self.presence_patches(class_maps).relu(), 3, stride=2, padding=1)
        segmentation, size = self.segmentation_patches(patch_maps).relu(), (2 * grid[0], 2 * grid[1])
        doubled = interpolate(segmentation, size, mode="bilinear", align_corners=True)
        return Logits(self.presence(halved).mean(dim=(2, 3)), self.segmentation(doubled))


def _attend_pairs(block: Mixing, x: Tensor, pooled: Tensor, support_mask: Tensor | None) -> Tensor:
    """Pair by pair, because each pair has its own visible support tokens."""
    if support_mask is None:
        return torch.stack([block.attend(*pair) for pair in zip(x, pooled, strict=True)])
    seen = block.is_seen(support_mask.float())
    return torch.stack([block.attend(x[pair, :, :, seen[pair]], pooled[pair]) for pair in range(len(x))])


def _trunk(width: int) -> list[nn.Module]:
    return [nn.Conv2d(width, width, 1), nn.GroupNorm(GROUPS, width), nn.ReLU()]


def _convolutions(channels: int, hidden: int, out: int, kernel: int) -> nn.Sequential:
    """Two convolutions that keep the size."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden, kernel, padding=kernel // 2),
        nn.ReLU(),
        nn.Conv2d(hidden, out, kernel, padding=kernel // 2),
    )
