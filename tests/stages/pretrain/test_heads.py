"""The heads against torch's own layers with the same weights."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from maskmill.stages.pretrain.heads import ProjectionHead, Prototypes, ReconstructionHead
from maskmill.stages.pretrain.objectives import cls_loss, patch_loss


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_prototypes_are_weight_norm_with_g_1():
    prototypes = Prototypes(6, 9)
    published = weight_norm(nn.Linear(6, 9, bias=False))
    directions = torch.arange(1.0, 10)[:, None] * normal(9, 6, seed=1)
    prototypes.load_state_dict({"directions": directions})
    published.load_state_dict(dict(zip(published.state_dict(), (torch.ones(9, 1), directions), strict=True)))
    features = normal(4, 6)
    found, expected = prototypes(features), published(features)
    assert (found - expected).abs().max() < 1e-6
    found.square().sum().backward()
    expected.square().sum().backward()
    _, published_directions = published.parameters()
    assert prototypes.directions.grad is not None
    assert published_directions.grad is not None
    assert (prototypes.directions.grad - published_directions.grad).abs().max() < 1e-5


def test_logits_are_cosines_with_prototypes_of_unit_norm():
    head = ProjectionHead(8, 12, hidden=16, bottleneck=6)
    tokens = normal(3, 5, 8)
    cls_logits, patch_logits = head(tokens)
    assert cls_logits.shape == (3, 12)
    assert patch_logits.shape == (3, 4, 12)
    features = head.mlp(tokens)
    for logits, feature, prototypes in (
        (cls_logits, features[:, 0], head.cls_prototypes),
        (patch_logits, features[:, 1:], head.patch_prototypes),
    ):
        exact = torch.cosine_similarity(feature[..., None, :], prototypes.directions, dim=-1)
        assert (logits - exact).abs().max() < 1e-5
        directions = prototypes(torch.eye(6)).T
        assert (directions.norm(dim=-1) - 1).abs().max() < 1e-6


def test_local_views_give_the_class_token_alone():
    head = ProjectionHead(8, 12, hidden=16, bottleneck=6)
    tokens = normal(3, 5, 8)
    alone, no_patches = head(tokens[:, :1])
    assert (alone - head(tokens)[0]).abs().max() < 1e-6
    assert no_patches.shape == (3, 0, 12)


def test_the_projection_is_the_published_one_by_default():
    head = ProjectionHead(384, 100)
    assert [type(layer) for layer in head.mlp] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]
    shapes = {name: tuple(parameter.shape) for name, parameter in head.named_parameters()}
    assert shapes == {
        "mlp.0.weight": (2048, 384),
        "mlp.0.bias": (2048,),
        "mlp.2.weight": (2048, 2048),
        "mlp.2.bias": (2048,),
        "mlp.4.weight": (256, 2048),
        "mlp.4.bias": (256,),
        "cls_prototypes.directions": (100, 256),
        "patch_prototypes.directions": (100, 256),
    }
    assert all(parameter.requires_grad for parameter in head.parameters())
    begun = head.state_dict()
    assert 0.019 < float(begun["mlp.2.weight"].std()) < 0.021
    assert not begun["mlp.2.bias"].any()


def test_reconstruction_is_the_published_transposed_convolution():
    head, patch, grid = ReconstructionHead(10, 4), 4, (3, 2)
    published = nn.ConvTranspose2d(10, 3, kernel_size=patch, stride=patch)
    weights = published.state_dict()
    head.to_pixels.load_state_dict(
        {"weight": weights["weight"].flatten(1).T, "bias": weights["bias"].repeat_interleave(patch * patch)}
    )
    patches = normal(2, 6, 10)
    found = head(patches, grid)
    assert found.shape == (2, 3, 12, 8)
    features = head.mlp(patches)
    expected = published(features.transpose(1, 2).unflatten(2, grid))
    assert (found - expected).abs().max() < 1e-5
    layers = [layer for layer in head.mlp.modules() if not isinstance(layer, nn.Sequential)]
    assert [type(layer) for layer in layers] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU]


def test_a_teacher_is_a_copy_that_gets_no_gradient():
    student = ProjectionHead(8, 12, hidden=16, bottleneck=6)
    teacher = copy.deepcopy(student)
    clean, corrupted = normal(4, 5, 8), normal(4, 5, 8, seed=1)
    teacher_cls, teacher_patches = teacher(clean)
    student_cls, student_patches = student(corrupted)
    loss = cls_loss(teacher_cls.softmax(dim=-1).view(2, 2, 12), student_cls.view(2, 2, 12))
    loss = loss + patch_loss(teacher_patches.softmax(dim=-1), student_patches)
    loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
