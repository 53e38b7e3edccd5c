"""What a stage computes cannot change without its code version: decoded outputs against those kept beside this file.

After a change that is meant, raise the stage's code version and write its golden file anew:
`PYTHONPATH=tests .venv/bin/python tests/golden/test_golden_outputs.py STAGE`
"""

import hashlib
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.configs import make_config
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.pixels import open_pixels
from maskmill.manifests.artifact.tokens import open_tokens
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.manifests.pictures.palette import decode_label_map
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import run
from maskmill.stages.enhance.config import EnhanceConfig
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.manifest.config import ManifestConfig
from maskmill.stages.mask.config import MaskConfig
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.registry import find_unit_stage

HERE = Path(__file__).parent
BACKBONE = "test_vit.r160_in1k"


def index_output(work: Path) -> Any:
    """Every column of the rows and every mask's pixels, of five pictures of different kinds; exact."""
    source = FolderSource(root=str(HERE / "index/pictures"), masks=str(HERE / "index/masks"))
    run(find_unit_stage("index"), IndexConfig(source=source), {}, str(work), RunOptions(max_bad=1.0))
    images = open_artifact(str(work))
    rows = images.rows().to_pylist()
    for row in rows:
        del row["mask_sha256"]  # of PNG bytes, which a new zlib may pack differently
    cells = images.cells("mask", range(len(rows)))
    masks = [decode_label_map(cell).tolist() if cell is not None else None for cell in cells]
    return {"classes": images.plan.facts["classes"], "rows": rows, "masks": masks}


def extract_output(work: Path) -> Any:
    """The rows and about a hundred numbers of every field, in two views, from weights that no library made."""

    index_output(work / "images")
    weights = chirping_weights(work / "weights.safetensors")
    fields = ("keys", "cls_query", "cls_attention:all", "tokens:2+5", "support_tokens:5")
    views: dict[str, Any] = {"padded": {"fit": "pad"}, "squashed and mirrored": {"fit": "squash", "flip": True}}
    found: dict[str, Any] = {}
    for name, view in views.items():
        config = make_config(
            ExtractConfig,
            backbone=BACKBONE,
            weights=weights,
            image_size=(32, 48),
            fields=fields,
            dtype="float32",
            **view,
        )
        run(
            find_unit_stage("extract"),
            config,
            {"images": str(work / "images")},
            str(work / name),
            RunOptions(max_bad=1.0),
        )
        tokens = open_tokens(work / name)
        rows = tokens.rows.select(["id", "status", "reason", "box", "height", "width"]).to_pylist()
        found[name] = {"rows": rows}
        for field in sorted(tokens.fields):
            numbers = tokens.at(field, range(len(rows))).ravel()
            found[name][field] = [round(float(number), 6) for number in numbers[:: len(numbers) // 100 | 1]]
    return found


def pixels_output(work: Path) -> Any:
    """The rows and every pixel, by each way to one size; exact."""
    from maskmill.stages.pixels.config import PixelsConfig

    index_output(work / "images")
    found: dict[str, Any] = {}
    configs = [PixelsConfig(image_size=(6, 7), fit=fit) for fit in ("crop", "pad", "squash")]
    for config in configs:
        out = work / config.fit
        run(find_unit_stage("pixels"), config, {"images": str(work / "images")}, str(out), RunOptions(max_bad=1.0))
        pixels = open_pixels(out)
        rows = pixels.rows.select(["id", "status", "reason", "box", "height", "width"]).to_pylist()
        found[config.fit] = {"rows": rows, "pixels": pixels.at(range(len(rows))).tolist()}
    return found


def mask_output(work: Path) -> Any:
    """Rows and maps of every method that needs no fit, of one view and of two where it merges, from tokens of numpy's
    generator."""
    from builders.toy_tokens import TOKENS, TokensConfig
    from maskmill.stages.mask.methods import METHODS  # torch takes seconds

    index_output(work / "images")
    options, where = RunOptions(max_bad=1.0), {"images": str(work / "images")}
    run(TOKENS, TokensConfig(grid=(3, 4)), where, str(work / "tokens"), options)
    run(TOKENS, TokensConfig(grid=(5, 3), flip=True), where, str(work / "flipped"), options)
    tokens = open_artifact(str(work / "tokens"))
    one = {**where, "tokens": str(work / "tokens")}
    two = {**one, "view2": str(work / "flipped")}
    methods = (("cst", "0"), ("cst", "1"), ("cst", "all"), ("cls-attention", ""), ("ncut", ""), ("maskcut", ""))
    found: dict[str, Any] = {}
    for (method, supports), views in product(methods, (one, two)):
        if views is two and METHODS[method].merge is None:
            continue
        out = work / f"{method}-{supports}{', two views' if views is two else ''}"
        has_heads = METHODS[method].per_head is not None
        run(
            find_unit_stage("mask"),
            make_config(MaskConfig, {"tokens": tokens}, method=method, supports=supports, per_head=has_heads),
            views,
            str(out),
            options,
        )
        maps = open_artifact(str(out))
        rows = maps.rows()
        found[out.name] = {
            "rows": rows.drop_columns(["unit", "row", *(n for n in rows.column_names if "sha256" in n)]).to_pylist()
        }
        for name, field in (("maps", "map"), *([("head maps", "head_maps")] if has_heads else [])):
            found[out.name][name] = maps.read(field, range(len(rows))).astype(float).round(6).tolist()
    return found


REFINED: Sequence[tuple[Any, str]] = (
    *(("none", background) for background in ("rows", "constant:0.4", "power:2", "two:0.3,0.6")),
    *(("par", background) for background in ("rows", "two:0.3,0.6")),
    ("guided", "rows"),
)


def enhance_output(work: Path) -> Any:
    """Rows and maps, by the mean of two networks and by one of them, whose weights a formula gives."""
    from builders.small_heads import TOY_HEADS, UNFITTED, HeadsConfig, UnfittedConfig
    from maskmill.pipeline.running.whole import run_whole  # torch takes seconds

    index_output(work / "images")
    options, where = RunOptions(max_bad=1.0), {"images": str(work / "images")}
    run(TOY_HEADS, HeadsConfig(), where, str(work / "maps"), options)
    where["maps"], where["model"] = str(work / "maps"), str(work / "model")
    run_whole(UNFITTED, UnfittedConfig(held_out="cat/a"), {"maps": where["maps"]}, where["model"])
    found: dict[str, Any] = {}
    for rule in ("0.5", "otsu"):
        run(find_unit_stage("enhance"), make_config(EnhanceConfig, threshold=rule), where, str(work / rule), options)
        maps = open_artifact(str(work / rule))
        rows = maps.rows().drop_columns(["unit", "row", "map_sha256"]).to_pylist()
        found[rule] = {"rows": rows, "maps": maps.read("map", range(len(rows))).astype(float).round(6).tolist()}
    return found


def refine_output(work: Path) -> Any:
    """Rows and every label map's pixels, by each way to a background, plain and smoothed, from soft maps that a formula
    gives."""
    from builders.small_labels import MAPS, MapsConfig

    index_output(work / "images")
    options, images = RunOptions(max_bad=1.0), {"images": str(work / "images")}
    found: dict[str, Any] = {}
    for kind, by_class in (("by class", True), ("without class", False)):
        maps = str(work / kind)
        run(MAPS, MapsConfig(by_class=by_class), images, maps, options)
        for refiner, background in REFINED:
            out = work / f"{kind}, {background}{'' if refiner == 'none' else f', {refiner}'}"
            config = make_config(RefineConfig, refiner=refiner, background=background)
            run(find_unit_stage("refine"), config, {"maps": maps, **images}, str(out), options)
            labels = open_artifact(str(out))
            rows = labels.rows().drop_columns(["unit", "row", "label_sha256"]).to_pylist()
            cells = labels.cells("label", range(len(rows)))
            found[out.name] = {"rows": rows, "labels": [cell and decode_label_map(cell).tolist() for cell in cells]}
    return found


def manifest_output(work: Path) -> Any:
    """The rows as they are published, and every mask's pixels, from soft maps that a formula gives."""
    from builders.small_labels import MAPS, MapsConfig

    index_output(work / "images")
    where, options = {"images": str(work / "images")}, RunOptions(max_bad=1.0)
    run(MAPS, MapsConfig(), where, str(work / "maps"), options)
    where["maps"] = str(work / "maps")
    run(find_unit_stage("refine"), make_config(RefineConfig), where, str(work / "labels"), options)
    run(
        find_unit_stage("refine"),
        make_config(RefineConfig, background="constant:0.6"),
        where,
        str(work / "compared"),
        options,
    )
    where |= {name: str(work / name) for name in ("labels", "compared")}
    config = make_config(ManifestConfig, min_score="area>=0.42", embed_images=True, ground_truth=["cat/a"])
    run(find_unit_stage("manifest"), config, where, str(work / "dataset"), options)
    rows = open_artifact(str(work / "dataset")).frame("data", 0).read().to_pylist()
    for row in rows:
        if row["status"] == "ok":
            row["mask"] = decode_label_map(row["mask"]["bytes"]).tolist()
            row["image"] = hashlib.sha256(row["image"]["bytes"]).hexdigest()
    return rows


def chirping_weights(path: Path) -> str:
    """A sine that grows faster and faster: of the size that weights have, and without a pattern."""
    import torch
    from safetensors.torch import save

    from maskmill.stages.vision.weights import read_weights

    state = {}
    for number, (name, tensor) in enumerate(sorted(read_weights(BACKBONE, "random:0")[1].items())):
        values = np.sin(0.37 * np.arange(tensor.numel()) ** 2 + number) * math.sqrt(2 / math.prod(tensor.shape[1:]))
        values = values if tensor.ndim > 1 else values / 10 + ("norm" in name and name.endswith("weight"))
        state[name] = torch.from_numpy(values.reshape(tensor.shape).astype(np.float32))
    path.write_bytes(save(state))
    return str(path)


OUTPUTS: dict[str, Callable[[Path], Any]] = {
    "index": index_output,
    "extract": extract_output,
    "pixels": pixels_output,
    "mask": mask_output,
    "enhance": enhance_output,
    "refine": refine_output,
    "manifest": manifest_output,
}


@pytest.mark.parametrize("stage", OUTPUTS)
def test_outputs_are_those_of_this_code_version(stage: str, tmp_path: Path) -> None:
    kept = json.loads((HERE / f"{stage}.json").read_text())
    assert kept["code_version"] == find_unit_stage(stage).code_version, f"write tests/golden/{stage}.json anew"
    found = json.loads(json.dumps(OUTPUTS[stage](tmp_path / "out")))
    wrong = difference(found, kept["output"])
    assert wrong is None, f"{stage} computes something else now ({wrong}): raise its code_version"


def difference(found: Any, kept: Any, where: str = "") -> str | None:
    """Where two values differ: floats by more than another processor may round, anything else at all."""
    if isinstance(found, dict) and isinstance(kept, dict) and found.keys() == kept.keys():
        pairs = [(f"{where}/{name}", found[name], kept[name]) for name in kept]
    elif isinstance(found, list) and isinstance(kept, list) and len(found) == len(kept):
        pairs = [(f"{where}/{number}", *pair) for number, pair in enumerate(zip(found, kept, strict=True))]
    elif isinstance(found, float) and isinstance(kept, float) and math.isclose(found, kept, rel_tol=1e-4, abs_tol=1e-4):
        return None
    else:
        return None if found == kept else f"{where}: {str(found)[:60]} for {str(kept)[:60]}"
    return next((wrong for pair in pairs if (wrong := difference(pair[1], pair[2], pair[0]))), None)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as work:
            kept = {"code_version": find_unit_stage(name).code_version, "output": OUTPUTS[name](Path(work, "out"))}
        (HERE / f"{name}.json").write_text(json.dumps(kept, separators=(",", ":")) + "\n")
