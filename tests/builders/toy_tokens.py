"""Tokens that no backbone has seen: random numbers, the same for the same picture, of any grid and width.

What reads tokens cannot tell them from extracted ones, and they cost nothing to make.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from builders.configs import make_command
from maskmill.manifests.artifact.fields import Field
from maskmill.stages.stage import Inputs, Known, RowList, RowResult, Stage, UnitResult, Work, rows_of_input

PATCH = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensConfig:
    grid: tuple[int, int] = (2, 3)
    heads: int = 2
    width: int = 8
    flip: bool = False

    @property
    def image_size(self) -> tuple[int, int]:
        return self.grid[0] * PATCH, self.grid[1] * PATCH


def plan(config: TokensConfig, inputs: Inputs, known: Known) -> RowList:
    backbone = {
        "name": "vit_toy",
        "grid": list(config.grid),
        "patch": [PATCH, PATCH],
        "heads": config.heads,
        "width": config.width,
    }
    weights = {"source": "toy", "sha256": "0" * 64, "licence": "none"}
    listed = rows_of_input(inputs, "images")
    facts = {"backbone": backbone, "weights": weights, "family": "unknown", "key_bias": []}
    return RowList(listed.columns, listed.batches, facts)


def fields(config: TokensConfig, inputs: Inputs) -> Sequence[Field]:
    patches = config.grid[0] * config.grid[1]
    shapes = {
        "keys": (patches, config.width),
        "cls_query": (config.width,),
        "cls_attention": (1, config.heads, patches),
    }
    detail = {"blocks": [0]}
    return [Field(name=name, kind="array", shape=shapes[name], dtype="float16", detail=detail) for name in shapes]


def columns(config: TokensConfig) -> Mapping[str, str]:
    return {"box": "ints", "height": "int64", "width": "int64"}


def reads(config: TokensConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    return {"images": ("picture",)}


def run_unit(work: Work, config: TokensConfig, prepared: Any) -> UnitResult:
    declared = {field.name: field for field in fields(config, work.inputs)}
    arrays = {name: np.zeros((len(work.ids), *each.shape), np.float16) for name, each in declared.items()}
    results = []
    for index, row in enumerate(work.upstream["images"].to_pylist()):
        if work.blocked[index]:
            results.append(RowResult())
            continue
        generator = np.random.default_rng(int(row["sha256"][:16], 16))
        for name, values in arrays.items():
            values[index] = generator.normal(size=declared[name].shape)
        arrays["cls_attention"][index] = np.abs(arrays["cls_attention"][index])
        box = [0, 0, *config.image_size]
        results.append(RowResult({"box": box, "height": row["height"], "width": row["width"]}))
    return UnitResult(results, {name: arrays[name] for name in work.fields})


TOKENS = Stage(
    command=make_command("toytokens", "tokens", TokensConfig, {"images": "images"}, "builders.toy_tokens:TOKENS"),
    code_version=1,
    plan=plan,
    fields=fields,
    columns=columns,
    run_unit=run_unit,
    reads=reads,
)
