"""Ways to hurt a file of an artifact, and to measure what a hurt one costs its reader."""

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faults.crash import in_child
from maskmill.manifests.errors import MaskmillError
from maskmill.manifests.files import sealed

GROWTH_MB = 200  # what a bomb may cost


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def resealed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes a file of ours as somebody would who knows how its digest is made."""
    value = json.loads(path.read_bytes())
    del value["sha256"]
    change(value)
    path.write_bytes(sealed.seal(value))


def assert_refused_in_little_memory(function: Callable[[], Any]) -> None:
    def refused() -> list[Any]:
        began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(MaskmillError) as caught:
            function()
        return [caught.value.exit_code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began]

    ended = in_child(refused)
    assert ended.code == 0, ended
    code, growth_kb = ended.answer
    assert code == 4
    assert growth_kb < GROWTH_MB * 1024
