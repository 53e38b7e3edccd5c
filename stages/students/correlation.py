"""How similar the patches of a query picture and the tokens of a support picture are, in every block and head.

Letters: B pairs, L blocks, M class token and patches of the query, T its patches, S class token and 12×12 patches of
the support, D width of a token, C channels = heads × blocks, E width of a head.

Source: CST (Kang et al., CVPR 2023), model/cst.py. Channels are ordered head by head, and within a head by block.
"""

from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn.functional import normalize


def head_directions(tokens: Float[Tensor, "B L N D"], heads: int) -> Float32[Tensor, "B C N E"]:
    """The part of each head in each token, at length 1 in float32; a part that is zero stays zero."""
    batch, blocks, count, width = tokens.shape
    assert width % heads == 0, f"token width {width} is not a multiple of {heads} heads"
    directions_BLNHE = normalize(tokens.float().view(batch, blocks, count, heads, width // heads), dim=-1)
    return directions_BLNHE.permute(0, 3, 1, 2, 4).reshape(batch, heads * blocks, count, width // heads)


def correlation(
    query_tokens: Float[Tensor, "B L M D"], support_tokens: Float[Tensor, "B L S D"], heads: int
) -> Float32[Tensor, "B C T S"]:
    """Cosines of stored `tokens` and `support_tokens`, without the query's class token, the first of M.

    At 400 pixels, 12 blocks and 6 heads it takes 104 MB per pair; `Learner.forward_tokens` does without it.
    """
    queries_BCTE = head_directions(query_tokens[:, :, 1:], heads)
    return queries_BCTE @ head_directions(support_tokens, heads).mT
