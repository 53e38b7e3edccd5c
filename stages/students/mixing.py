"""One block of the learner: every query patch attends to the support, and its tokens become fewer.

Letters: B pairs, C channels, T query patches, t some of them, S support tokens (the class token and a square grid),
s the visible ones, P all of them after pooling, O output channels, F attention channels, H heads, E width of a head,
I J pixels of the support's mask.

Source: CST, model/module/corrtrblock.py. Each query patch attends to the support tokens by itself, and the attention
logits are not scaled. Two things differ here with the same result. Pooling averages, so it commutes with the 1×1
convolutions before it, and comes first. A support token whose mask is 0 has weight exp(−1e9) = 0 beside the class
token, which is never hidden; here it is left out.
"""

import torch
from jaxtyping import Bool, Float32
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu, scaled_dot_product_attention

HEADS, GROUPS = 8, 4


class Mixing(nn.Module):
    """`side` is that of the input grid, `pool` that of the squares of cells that are averaged."""

    def __init__(self, channels: int, width: int, side: int, pool: int) -> None:
        super().__init__()
        hidden = width // 2
        self.side, self.pool = side, pool
        self.shortcut = nn.Conv2d(channels, width, 1, bias=False)
        self.shortcut_norm = nn.GroupNorm(GROUPS, width)
        self.query_key_value = nn.Conv2d(channels, 3 * hidden, 1)
        self.attended_norm = nn.GroupNorm(GROUPS, hidden)
        self.projection = nn.Conv2d(hidden, width, 1, bias=False)
        self.projection_norm = nn.GroupNorm(GROUPS, width)
        self.joined_norm = nn.GroupNorm(GROUPS, width)
        self.narrow = nn.Conv2d(width, width // 2, 1, bias=False)
        self.narrow_norm = nn.GroupNorm(GROUPS, width // 2)
        self.wide = nn.Conv2d(width // 2, width, 1, bias=False)
        self.norm = nn.GroupNorm(GROUPS, width)

    def pool_tokens(self, values: Float32[Tensor, "*N S"]) -> Float32[Tensor, "*N P"]:
        """The class token, and the means of squares of cells."""
        cells = values[..., 1:].reshape(-1, 1, self.side, self.side)
        means = avg_pool2d(cells, self.pool).reshape(*values.shape[:-1], -1)
        return torch.cat([values[..., :1], means], dim=-1)

    def is_seen(self, support_mask: Float32[Tensor, "B I J"]) -> Bool[Tensor, "B S"]:
        """Which tokens are visible. With corners aligned, a cell takes the mask at one point: a 3×3 grid reads the
        corners of the mask, the middles of its edges and its centre, and nothing in between."""
        grid = interpolate(support_mask[:, None], (self.side, self.side), mode="bilinear", align_corners=True)
        is_object_BS = grid.flatten(1) != 0
        return torch.cat([is_object_BS.new_ones(len(is_object_BS), 1), is_object_BS], dim=1)

    def attend(self, seen: Float32[Tensor, "C t s"], pooled: Float32[Tensor, "C t P"]) -> Float32[Tensor, "F t P"]:
        """Attention of query patches of one pair, each by itself, over the visible support tokens."""
        weight, bias = self.query_key_value.weight.flatten(1), self.query_key_value.bias
        assert bias is not None
        hidden = len(bias) // 3
        _, patches, tokens = seen.shape
        query = torch.addmm(bias[:hidden], pooled.flatten(1).T, weight[:hidden].T)
        key_value = torch.addmm(bias[hidden:], seen.flatten(1).T, weight[hidden:].T)
        query_tHPE = query.view(patches, -1, HEADS, hidden // HEADS).transpose(1, 2)
        key_tHsE, value_tHsE = key_value.view(patches, tokens, 2, HEADS, hidden // HEADS).permute(2, 0, 3, 1, 4)
        attended_tHPE = scaled_dot_product_attention(query_tHPE, key_tHsE, value_tHsE, scale=1.0)
        return attended_tHPE.permute(1, 3, 0, 2).flatten(0, 1)

    def finish_block(
        self, attended: Float32[Tensor, "B F T P"], pooled: Float32[Tensor, "B C T P"]
    ) -> Float32[Tensor, "B O T P"]:
        """The layers after attention, over all query patches of a pair at once, because the norms are."""
        shortcut = relu(self.shortcut_norm(self.shortcut(pooled)))
        projected = relu(self.projection_norm(self.projection(relu(self.attended_norm(attended)))))
        joined = self.joined_norm(projected + shortcut)
        return self.norm(joined + self.wide(relu(self.narrow_norm(self.narrow(joined)))))
