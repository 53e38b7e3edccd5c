"""What a stage computes cannot change without its code version: decoded outputs against those kept beside this file.

After a change that is meant, raise the stage's code version and write its golden file anew:
`PYTHONPATH=tests .venv/bin/python tests/golden/test_golden_outputs.py`
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskmill.manifests.artifact import open_artifact
from maskmill.manifests.datasets import FolderSource
from maskmill.manifests.palette import decode_label_map
from maskmill.pipeline.job import RunOptions
from maskmill.pipeline.run import run
from maskmill.stages import find_stage
from maskmill.stages.index.stage import IndexConfig

HERE = Path(__file__).parent


def index_output(work: Path) -> Any:
    """Every column of the rows and every mask's pixels, of five pictures of different kinds; exact."""
    source = FolderSource(root=str(HERE / "index/pictures"), masks=str(HERE / "index/masks"))
    run(find_stage("index"), IndexConfig(source=source), {}, str(work), RunOptions(max_bad=1.0))
    images = open_artifact(str(work))
    rows = images.rows().to_pylist()
    for row in rows:
        del row["mask_sha256"]  # of PNG bytes, which a new zlib may pack differently
    cells = images.cells("mask", range(len(rows)))
    masks = [decode_label_map(cell).tolist() if cell is not None else None for cell in cells]
    return {"classes": images.plan.facts["classes"], "rows": rows, "masks": masks}


OUTPUTS: dict[str, Callable[[Path], Any]] = {"index": index_output}


@pytest.mark.parametrize("stage", OUTPUTS)
def test_outputs_are_those_of_this_code_version(stage: str, tmp_path: Path) -> None:
    kept = json.loads((HERE / f"{stage}.json").read_text())
    assert kept["code_version"] == find_stage(stage).code_version, f"write tests/golden/{stage}.json anew"
    found = json.loads(json.dumps(OUTPUTS[stage](tmp_path / "out")))
    assert found == kept["output"], f"{stage} computes something else now: raise its code_version"


if __name__ == "__main__":
    for name, output in OUTPUTS.items():
        with tempfile.TemporaryDirectory() as work:
            kept = {"code_version": find_stage(name).code_version, "output": output(Path(work, "out"))}
        (HERE / f"{name}.json").write_text(json.dumps(kept, separators=(",", ":")) + "\n")
