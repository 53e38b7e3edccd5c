"""CRF presets: the published parameters, typed out a second time, and what a user meets who misspells one."""

import pytest

from maskmill.manifests.errors import ConfigError
from maskmill.stages.refine.presets import PRESETS, find_crf_preset

# name: unary, Gaussian sxy / compat, bilateral sxy / srgb / compat, background rule
TABLE = """
irn              labels   3 / 3   50 / 5 / 10   two:0.05,0.3
afa              labels   3 / 3   50 / 5 / 10   two:0.05,0.3
toco             labels   3 / 3   50 / 5 / 10   two:0.05,0.3
weclip           labels   3 / 3   50 / 5 / 10   two:0.05,0.3
dupl             labels   3 / 3   50 / 5 / 10   two:0.05,0.3
seco             labels   3 / 3   50 / 5 / 10   two:0.05,0.3
more             labels   3 / 3   50 / 5 / 10   two:0.05,0.3
excel            labels   3 / 3   50 / 5 / 10   two:0.05,0.3
psa              softmax  3 / 3   80 / 13 / 10  power:4
mctformer-psa    softmax  3 / 3   80 / 13 / 10  power:4
mctformer-seg    softmax  4 / 3   83 / 5 / 3    map
afa-seg          softmax  3 / 3   64 / 5 / 4    map
weclip-seg       softmax  3 / 3   64 / 5 / 4    map
toco-cam         softmax  3 / 3   36 / 3 / 4    two:0.25,0.7
toco-seg         softmax  1 / 1   121 / 5 / 4   map
dupl-seg         softmax  1 / 1   121 / 5 / 4   map
seco-seg         softmax  1 / 1   121 / 5 / 4   map
clip-es          softmax  1 / 3   67 / 3 / 4    power:1
more-lam         softmax  1 / 3   67 / 3 / 4    power:1
excel-lam        softmax  1 / 3   67 / 3 / 4    map
vit-pcm          softmax  1 / 3   67 / 3 / 4    map
weaktr-cam-voc   labels   4 / 3   83 / 5 / 3    constant:0.43
weaktr-cam-coco  labels   3 / 3   50 / 5 / 10   constant:0.42
weaktr-seg-voc   softmax  3 / 3   83 / 5 / 3    map
weaktr-seg-coco  softmax  1 / 3   67 / 3 / 4    map
"""


@pytest.mark.parametrize("line", TABLE.strip().splitlines(), ids=lambda line: line.split()[0])
def test_a_preset_has_the_published_parameters(line: str) -> None:
    name, unary, gaussian_sxy, gaussian_compat, bilateral_sxy, srgb, bilateral_compat, rule = line.replace(
        "/", ""
    ).split()
    preset = find_crf_preset(name)
    assert preset.unary == unary
    assert (preset.gaussian_sxy, preset.gaussian_compat) == (float(gaussian_sxy), float(gaussian_compat))
    assert (preset.bilateral_sxy, preset.bilateral_srgb) == (float(bilateral_sxy), float(srgb))
    assert preset.bilateral_compat == float(bilateral_compat)
    assert str(preset.background).rstrip("0").removesuffix(".") == rule
    assert preset.iterations == 10
    assert preset.gt_prob == 0.7
    assert preset.ignore_below == (0.95 if name == "clip-es" else None)
    assert preset.softens == (name == "toco-cam")
    assert preset.source


def test_every_preset_stands_in_the_table() -> None:
    typed = {line.split()[0] for line in TABLE.strip().splitlines()}
    names = [name for preset in PRESETS for name in (preset.name, *preset.aliases)]
    assert typed == set(names) - {"weclip+", "weclip+-seg"}  # a second version with the same parameters
    assert len(names) == len(set(names))
    for preset in PRESETS:
        assert all(find_crf_preset(name) is preset for name in (preset.name, *preset.aliases))


def test_case_and_spaces_do_not_matter() -> None:
    assert find_crf_preset(" CLIP-ES ") is find_crf_preset("clip-es")


def test_a_misspelt_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'weaktr-voc'.*weaktr-cam-voc") as refused:
        find_crf_preset("weaktr-voc")
    assert "psa" not in str(refused.value)


def test_a_name_like_none_is_answered_with_all() -> None:
    with pytest.raises(ConfigError, match=r"clip-es.*irn.*weaktr-seg-voc"):
        find_crf_preset("?")
