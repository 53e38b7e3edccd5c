"""Extraction with a window into worker processes: which of them loaded the model, what each ran, on how many threads.

Written into the directory that MASKMILL_WINDOW names: `prepared-PID` with a letter for every model loaded, and
`ran-UNIT-PID` with the number of threads that torch had.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from maskmill.stages.extract import stage as extract
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.stage import UnitResult, Work

WINDOW = "MASKMILL_WINDOW"


def prepare(config: ExtractConfig, inputs: Any) -> Any:
    with Path(os.environ[WINDOW], f"prepared-{os.getpid()}").open("a") as stream:
        stream.write("p")
    return extract.prepare(config, inputs)


def run_unit(work: Work, config: ExtractConfig, prepared: Any) -> UnitResult:
    Path(os.environ[WINDOW], f"ran-{work.unit.index}-{os.getpid()}").write_text(str(torch.get_num_threads()))
    return extract.run_unit(work, config, prepared)


# The same name and code version: what it makes is what extraction makes, byte for byte.
WATCHED = replace(extract.STAGE, prepare=prepare, run_unit=run_unit)
