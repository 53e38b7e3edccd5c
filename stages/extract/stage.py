"""Runs the vision transformer once and stores the chosen token fields and blocks of every picture.

Letters: R rows of a unit, B pictures of a batch.
"""

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from ...manifests.artifact.facts import BackboneFacts, TokensFacts, WeightsFacts
from ...manifests.artifact.fields import Field
from ...manifests.artifact.quantized import quantize, scale_name
from ...manifests.errors import Reason
from ...manifests.files.sealed import Json
from ..stage import Inputs, Known, Probe, RowList, RowResult, Stage, UnitResult, Work, rows_of_input
from ..vision.backbone import backbone_facts, find_device, load_backbone, training_size
from ..vision.builtin import full_backbone_name
from ..vision.computing import Extractor, HostFields, Launched, fetch_one_behind, fitting_batch
from ..vision.key_bias import key_bias
from ..vision.pictures import ViewSpec, load_ahead, load_first, stack_pictures
from ..vision.profiles import PROFILES
from ..vision.token_fields import Wanted
from ..vision.weights import read_weights
from .config import EXTRACT, ExtractConfig
from .fields import array_fields, blocks_by_field, explicit_fields, fields_in_group, merge_existing_fields

PROBE_S = 4.0  # seconds of measuring for `plan`, after the backbone is loaded


def resolve(config: ExtractConfig, inputs: Inputs) -> ExtractConfig:
    """Fills in the backbone's own size, the resampling of position embeddings and the digest of the weights; weights
    with a known digest are not read again."""
    find_device(config.device)
    backbone = full_backbone_name(config.backbone)
    rows_px, columns_px = config.image_size or training_size(backbone)
    facts = backbone_facts(backbone, rows_px, columns_px)
    explicit = explicit_fields(config.fields, facts)
    if config.weights_sha256:
        return dataclasses.replace(config, fields=explicit)
    weights, state = read_weights(backbone, config.weights)
    profile = PROFILES[weights.family]
    positions = config.positions or profile.positions
    has_bias_to_subtract = config.dtype == "int8" and profile.feature == "keys"
    return dataclasses.replace(
        config,
        backbone=backbone,
        weights_sha256=weights.sha256,
        image_size=(rows_px, columns_px),
        fields=explicit,
        positions=positions,
        subtracts_key_bias=has_bias_to_subtract and bool(key_bias(facts, state, positions)),
        weights=os.path.abspath(config.weights) if os.path.exists(config.weights) else config.weights,
    )


def plan(config: ExtractConfig, inputs: Inputs, known: Known) -> RowList:
    return rows_of_input(inputs, "images", _tokens_facts(config).as_json())


def add_facts(config: ExtractConfig, facts: Mapping[str, Json]) -> Mapping[str, Json]:
    """The family and the bias of keys, for tokens from before they were recorded."""
    return {} if "key_bias" in facts else _tokens_facts(config).as_json()


def _tokens_facts(config: ExtractConfig) -> TokensFacts:
    weights, state = read_weights(config.backbone, config.weights, config.weights_sha256)
    facts = _facts(config)
    weights_facts = WeightsFacts(weights.source, weights.sha256, weights.licence)
    return TokensFacts(facts, weights_facts, weights.family, key_bias(facts, state, config.positions))


def fields(config: ExtractConfig, inputs: Inputs) -> Sequence[Field]:
    return array_fields(_facts(config), _field_blocks(config), config.dtype)


def with_held(config: ExtractConfig, held: Mapping[str, Json]) -> ExtractConfig:
    return dataclasses.replace(
        config, fields=merge_existing_fields(config.fields, held["fields"], _facts(config).depth)
    )


def columns(config: ExtractConfig) -> Mapping[str, str]:
    return {
        "box": "ints",  # top, left, bottom, right of the picture in the view, in pixels
        "height": "int64",  # of the picture upright
        "width": "int64",
    }


def reads(config: ExtractConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    return {"images": ("picture",)}


def prepare(config: ExtractConfig, inputs: Inputs) -> Extractor:
    _, state = read_weights(config.backbone, config.weights, config.weights_sha256)
    if config.device != "cpu":
        torch.backends.cudnn.allow_tf32 = False  # TF32 would give the patch embedding 10 bits instead of 23
    backbone = load_backbone(config.backbone, state, *config.image_size, config.positions, config.device)
    stored = torch.float16 if config.dtype == "float16" else torch.float32
    return Extractor(backbone, config.autocast, stored, fitting_batch(backbone, config.autocast, config.batch))


def run_unit(work: Work, config: ExtractConfig, extractor: Extractor) -> UnitResult:
    wanted = fields_in_group(_field_blocks(config), work.fields)
    stored = array_fields(extractor.backbone.facts, wanted, config.dtype)
    arrays = {field.name: np.zeros((len(work.ids), *field.shape), field.dtype) for field in stored}
    rows = [RowResult()] * len(work.ids)
    for start, batch in fetch_one_behind(_launch_batches(work, config, extractor, wanted, rows)):
        if config.subtracts_key_bias and "keys" in batch:
            batch["keys"] -= np.array(TokensFacts.from_json(work.facts).key_bias, np.float32)
        if config.dtype == "int8":
            batch = _quantize_fields(batch, rows, start)
        for name, values in batch.items():
            arrays[name][start : start + len(values)] = values
    return UnitResult(rows, arrays)


def probe(config: ExtractConfig, inputs: Inputs) -> Probe:
    """Runs one picture to warm up, one to choose the batch size, then measures one batch."""
    extractor, wanted = prepare(config, inputs), _field_blocks(config)
    view = _view(config, extractor.backbone.facts)

    def measure(count: int) -> Probe:
        began = time.perf_counter()
        loaded = load_first(inputs["images"], view, count)
        extractor.launch(stack_pictures(loaded, view), wanted).fetch()
        return Probe(len(loaded), time.perf_counter() - began)

    measure(1)
    return measure(max(1, min(config.batch, int(PROBE_S / measure(1).seconds))))


def _launch_batches(
    work: Work, config: ExtractConfig, extractor: Extractor, wanted: Wanted, rows: list[RowResult]
) -> Iterator[tuple[int, Launched]]:
    """Launches every batch with a readable picture, and writes the result of each picture into `rows`."""
    view = _view(config, extractor.backbone.facts)
    for start, loaded in load_ahead(work, view, config.batch):
        rows[start : start + len(loaded)] = [picture.result for picture in loaded]
        if any(picture.pixels is not None for picture in loaded):
            yield start, extractor.launch(stack_pictures(loaded, view), wanted)


def _quantize_fields(batch: HostFields, rows: list[RowResult], start: int) -> HostFields:
    """Signed bytes and their scales. A row with a value that is not finite fails."""
    quantized: HostFields = {}
    for name, values in batch.items():
        finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        for index in np.flatnonzero(~finite).tolist():
            values[index] = 0
            if rows[start + index].reason is None:
                rows[start + index] = RowResult(reason=Reason.NOT_FINITE)
        quantized[name], quantized[scale_name(name)] = quantize(values)
    return quantized


def _view(config: ExtractConfig, facts: BackboneFacts) -> ViewSpec:
    rows_px, columns_px = config.image_size
    return ViewSpec(rows_px=rows_px, columns_px=columns_px, fit=config.fit, flip=config.flip, mean=facts.mean)


def _facts(config: ExtractConfig) -> BackboneFacts:
    return backbone_facts(config.backbone, *config.image_size)


def _field_blocks(config: ExtractConfig) -> Wanted:
    return blocks_by_field(config.fields, _facts(config).depth)


def _device_type(config: ExtractConfig) -> str:
    return config.device.partition(":")[0]


STAGE = Stage(
    command=EXTRACT,
    code_version=1,
    resolve=resolve,
    plan=plan,
    fields=fields,
    columns=columns,
    reads=reads,
    add_facts=add_facts,
    prepare=prepare,
    run_unit=run_unit,
    probe=probe,
    selects=("fields",),
    with_held=with_held,
    libraries=("Pillow", "timm", "torch"),
    max_unit_rows=256,  # some minutes with a large backbone on a CPU: the most that a kill costs
    device=_device_type,
)
