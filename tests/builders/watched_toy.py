"""The toy stage with a window into worker processes: which process prepared and ran what, with how many threads.

Works through the directory that injects faults into the toy. Written there: `prepared-PID` with a letter for every
call of `prepare`, `ran-UNIT-PID` with the numeric libraries' environment. Read there: `wait` (seconds each unit
takes), `raise-as` (the name of the error every unit raises).

As a program it runs that stage like a command: IMAGES OUT OPTIONS, the last as JSON.
"""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from builders import toy
from maskmill.manifests import errors
from maskmill.stages.stage import Inputs, UnitResult, Work


def prepare(config: toy.ToyConfig, inputs: Inputs) -> str:
    with Path(os.environ[toy.FAULTS], f"prepared-{os.getpid()}").open("a") as stream:
        stream.write("p")
    return "prepared"


def run_unit(work: Work, config: toy.ToyConfig, prepared: Any) -> UnitResult:
    assert prepared == "prepared"
    window = Path(os.environ[toy.FAULTS])
    threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    (window / f"ran-{work.unit.index}-{os.getpid()}").write_text(json.dumps(threads))
    if (window / "raise-as").exists():
        name = (window / "raise-as").read_text()
        raise getattr(errors, name)(f"told to raise {name} in unit {work.unit.index}")
    if (window / "wait").exists():
        time.sleep(float((window / "wait").read_text()))
    return toy.run_unit(work, config, prepared)


# The same name and code version: what it makes is what the toy makes, byte for byte.
WATCHED = dataclasses.replace(toy.TOY, run_unit=run_unit, prepare=prepare)


def main() -> int:
    from builders import watched_toy  # by its name: workers cannot find what is in __main__
    from maskmill.cli import main as shell
    from maskmill.pipeline.running.options import RunOptions
    from maskmill.pipeline.running.run import run

    images, out, options = sys.argv[1:]

    def command(arguments: list[str]) -> int:
        outcome = run(watched_toy.WATCHED, toy.ToyConfig(), {"images": images}, out, RunOptions(**json.loads(options)))
        print(json.dumps(outcome.counts))
        return outcome.exit_code

    shell._run = command  # the rest of the shell, its signals, sentences and exit codes, is the real one
    return shell.main([])


if __name__ == "__main__":
    sys.exit(main())
