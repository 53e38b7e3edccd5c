"""The losses of distillation against values by hand."""

import math

import pytest
import torch

from maskmill.stages.pretrain.distill_losses import mean_of_parts, measure_scale, scale_tokens, token_losses


def test_losses_by_hand() -> None:
    predicted, targets = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), torch.tensor([[[2.0, 0.0], [3.0, 1.5]]])
    cosine = 4.5 / math.sqrt(2 * 11.25)
    torch.testing.assert_close(token_losses(predicted, targets, "cosine"), torch.tensor([[0.0, 1 - cosine]]))
    # |difference| 1 and 0; 2 and ½: smooth L1 is ½ d² below 1, else d − ½.
    torch.testing.assert_close(token_losses(predicted, targets, "smooth-l1"), torch.tensor([[0.25, (1.5 + 0.125) / 2]]))


def test_scaled_tokens_have_mean_0_and_deviation_1_in_each_part() -> None:
    tokens = torch.randn(40, 5, 3) * 4 + torch.tensor([10.0, -20.0, 3.0])
    tokens[:, 0] = tokens[:, 0] * 9 - 50
    scaled = scale_tokens(tokens, measure_scale(tokens))
    for part in (scaled[:, 0], scaled[:, 1:].flatten(0, 1)):
        torch.testing.assert_close(part.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
        assert float(part.square().mean()) == pytest.approx(1, abs=1e-5)


def test_a_constant_teacher_gives_no_number_that_is_not_finite() -> None:
    tokens = torch.full((4, 3, 2), 5.0)
    assert scale_tokens(tokens, measure_scale(tokens)).abs().max() == 0


def test_means_of_class_token_and_counted_patches() -> None:
    values = torch.tensor([[1.0, 2.0, 4.0], [3.0, 8.0, 100.0]])
    cls, patch = mean_of_parts(values, torch.tensor([[True, True], [True, False]]))
    assert (float(cls), float(patch)) == (2.0, (3 + 8) / 2)
