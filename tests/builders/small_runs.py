"""The three stages that a small chain of artifacts needs, each in one short call."""

from builders.toy import ECHO, TOY, EchoConfig, ToyConfig
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, run
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX

UNITS_OF_4 = RunOptions(unit_rows=4, max_bad=0.5)


def index(root: object, out: object, options: RunOptions = UNITS_OF_4) -> Outcome:
    return run(INDEX, IndexConfig(source=FolderSource(root=str(root))), {}, str(out), options)


def toy(images: object, out: object, options: RunOptions = UNITS_OF_4, config: ToyConfig | None = None) -> Outcome:
    return run(TOY, config or ToyConfig(), {"images": str(images)}, str(out), options)


def echo(toys: object, out: object, options: RunOptions = UNITS_OF_4) -> Outcome:
    return run(ECHO, EchoConfig(), {"toys": str(toys)}, str(out), options)
