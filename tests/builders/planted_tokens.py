"""Tokens with an object planted in every picture: its patches have keys and attention of their own.

Background patches share a direction, objects one of two others; what padding holds looks like an object that nothing
attends to.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from builders import toy_tokens
from builders.configs import make_command
from builders.toy_tokens import PATCH, columns, fields, plan, reads
from maskmill.stages.stage import RowResult, Stage, UnitResult, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedConfig(toy_tokens.TokensConfig):
    grid: tuple[int, int] = (6, 8)
    heads: int = 2
    width: int = 16
    flip: bool = False
    padded_columns: int = 0
    has_objects: bool = True
    noise: float = 0.1


def planted_object(sha256: str, config: PlantedConfig) -> Bool[np.ndarray, "R C"]:
    """A rectangle of at least 2 × 2 patches, at most half of each side."""
    (rows, columns), generator = config.grid, np.random.default_rng(int(sha256[:16], 16))
    columns -= config.padded_columns
    mask_RC = np.zeros(config.grid, np.bool_)
    height, width = generator.integers(2, rows // 2 + 1), generator.integers(2, columns // 2 + 1)
    top, left = generator.integers(rows - height + 1), generator.integers(columns - width + 1)
    mask_RC[top : top + height, left : left + width] = config.has_objects
    return mask_RC


def run_unit(work: Work, config: PlantedConfig, prepared: object) -> UnitResult:
    declared = {field.name: field for field in fields(config, work.inputs)}
    arrays = {name: np.zeros((len(work.ids), *each.shape), np.float16) for name, each in declared.items()}
    results = []
    rows_px, columns_px = config.image_size
    box = [0, 0, rows_px, columns_px - config.padded_columns * PATCH]
    for index, row in enumerate(work.upstream["images"].to_pylist()):
        mask_RC = planted_object(row["sha256"], config)
        keys, attention = _plant(mask_RC, config, int(row["sha256"][:16], 16))
        arrays["keys"][index], arrays["cls_attention"][index, 0] = keys, attention
        results.append(RowResult({"box": box, "height": row["height"], "width": row["width"]}))
    return UnitResult(results, {name: arrays[name] for name in work.fields})


def _plant(mask_RC: np.ndarray, config: PlantedConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng([seed, 1])
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(config.width, 3)))[0].T
    keys_RCD = np.where(mask_RC[..., None], directions[1 + seed % 2], directions[0])
    keys_RCD = keys_RCD + config.noise * generator.normal(size=keys_RCD.shape) / np.sqrt(config.width)
    attention_HRC = (0.2 + 0.8 * mask_RC) * generator.uniform(0.5, 1, (config.heads, *config.grid))
    if config.padded_columns:
        keys_RCD[:, -config.padded_columns :] = directions[1]
        attention_HRC[..., -config.padded_columns :] = 0
    if config.flip:
        keys_RCD, attention_HRC = keys_RCD[:, ::-1], attention_HRC[..., ::-1]
    return keys_RCD.reshape(-1, config.width), attention_HRC.reshape(config.heads, -1)


TOKENS = Stage(
    command=make_command(
        "plantedtokens", "tokens", PlantedConfig, {"images": "images"}, "builders.planted_tokens:TOKENS"
    ),
    code_version=1,
    plan=plan,
    fields=fields,
    columns=columns,
    run_unit=run_unit,
    reads=reads,
)
