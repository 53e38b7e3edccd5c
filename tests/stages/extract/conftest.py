"""timm's smallest vision transformer over twelve small pictures, once per test that asks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from builders.configs import make_config
from builders.picture_folder import PictureFolder
from builders.small_dataset import write_dataset
from maskmill.manifests.artifact.tokens import Tokens, open_tokens
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, run
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.extract.stage import STAGE
from maskmill.stages.vision.backbone import load_backbone
from maskmill.stages.vision.fitting import as_input, fit_picture
from maskmill.stages.vision.token_fields import Wanted, token_fields
from maskmill.stages.vision.weights import read_weights

BACKBONE, WEIGHTS = "test_vit.r160_in1k", "random:0"
ROWS_PX, COLUMNS_PX = 32, 48
UNITS_OF_5 = RunOptions(unit_rows=5, max_bad=1.0)


class Bench(PictureFolder):
    def config(self, **asked: Any) -> Any:
        return make_config(
            ExtractConfig,
            **{
                "backbone": BACKBONE,
                "weights": WEIGHTS,
                "image_size": (ROWS_PX, COLUMNS_PX),
                "dtype": "float32",
                "batch": 3,
                **asked,
            },
        )

    def run(self, out: Path, options: RunOptions = UNITS_OF_5, **asked: Any) -> Outcome:
        return run(STAGE, self.config(**asked), {"images": str(self.images)}, str(out), options)

    def extract(self, options: RunOptions = UNITS_OF_5, **asked: Any) -> Tokens:
        """Into a new directory, read again."""
        out = self.new_out()
        self.run(out, options, **asked)
        return open_tokens(str(out))

    def picture(self, identifier: str) -> np.ndarray:
        """Decoded by nobody of ours."""
        with Image.open(self.pictures / f"{identifier}.png") as image:
            return np.asarray(image.convert("RGB"))

    def direct(self, wanted: Wanted, fit: Any = "pad", flip: bool = False, weights: str = WEIGHTS) -> dict[str, Any]:
        """Field → every picture's values in float32, by the order of the ids, without the stage: one batch of all."""
        _, state = read_weights(BACKBONE, weights)
        backbone = load_backbone(BACKBONE, state, ROWS_PX, COLUMNS_PX, "timm")
        facts = backbone.facts
        views = [fit_picture(self.picture(each), ROWS_PX, COLUMNS_PX, fit, facts.mean)[0] for each in self.ids()]
        pixels = np.stack([view[:, ::-1] if flip else view for view in views])
        found = token_fields(backbone, as_input(torch.from_numpy(pixels), facts.mean, facts.std), wanted)
        return {name: values.numpy() for name, values in found.items()}


def bench_of(home: Path) -> Bench:
    bench = Bench(home)
    write_dataset(bench.pictures, 12)
    bench.index()
    return bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Its pictures are only read."""
    return bench_of(tmp_path_factory.mktemp("extract"))


@pytest.fixture
def own_bench(tmp_path: Path) -> Bench:
    """For a test that changes pictures."""
    return bench_of(tmp_path)


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    """The tensors of random:0 in a file."""
    path = tmp_path / "weights.safetensors"
    save_file(read_weights(BACKBONE, WEIGHTS)[1], path)
    return path
