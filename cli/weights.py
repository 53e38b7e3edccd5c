"""`maskmill weights …`."""

from pathlib import Path

import click

from ..manifests.errors import ConfigError
from ..manifests.files import atomic
from ..manifests.files.place import split
from ..pipeline.quantities import size


@click.group()
def weights() -> None:
    """Convert files of weights."""


@weights.command()
@click.argument("source", metavar="IN", help="Training checkpoint.")
@click.argument("target", metavar="OUT.safetensors", help="File to write.")
def convert(source: str, target: str) -> None:
    """Keep the tensors of a training checkpoint and drop everything else.

    No code of IN runs. Besides tensors and plain values, argparse.Namespace, paths, and numpy's arrays, dtypes and
    scalars are allowed and dropped; any other class is refused.
    """
    from ..stages.vision.checkpoints import convert_weights

    if not target.endswith(".safetensors"):
        raise ConfigError(f"{target} should be the name of a safetensors file; write {Path(target).stem}.safetensors")
    data, forgotten = convert_weights(Path(source))
    folder, name = split(target)
    atomic.write(folder, name, data)
    left = f"; forgot what it held of {', '.join(forgotten)}" if forgotten else ""
    click.echo(f"weights: {size(len(data))} of tensors → {folder.path(name)}{left}")
