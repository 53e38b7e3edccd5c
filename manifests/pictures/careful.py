"""Decoding in a process of its own, for pictures of which one has taken a worker down: it takes its own process only.

The child is this module run as a program: the picture on its standard input, its pixels on its standard output. It is
no fork, because a Dask worker may have none, and what crashed a decoder may lie in the memory that a fork shares.
"""

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
from jaxtyping import UInt8

from ..errors import Reason, RowFailed
from .decoder import decode_picture
from .limits import DEFAULT_LIMITS, Limits

PATIENCE_S = 120.0  # a decoder that takes longer hangs


def decode_carefully(data: bytes, limits: Limits = DEFAULT_LIMITS) -> UInt8[np.ndarray, "H W 3"]:
    """The picture as `decode_picture` gives it; one that ends or outlasts its process fails as crashed."""
    command = [sys.executable, "-P", "-m", __name__, json.dumps(asdict(limits))]
    try:
        child = subprocess.run(command, input=data, capture_output=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        raise RowFailed(Reason.CRASHED, f"decoding took longer than {PATIENCE_S:.0f} s") from None
    started, _, answer = child.stdout.partition(b"\n")
    if not started:
        raise RuntimeError(f"the process to decode in did not start: {child.stderr.decode(errors='replace').strip()}")
    header, _, pixels = answer.partition(b"\n")
    if child.returncode or not header:
        raise RowFailed(Reason.CRASHED, f"decoding ended its process with {child.returncode}")
    found = json.loads(header)
    if "reason" in found:
        raise RowFailed(Reason(found["reason"]), found["detail"])
    return np.frombuffer(bytearray(pixels), np.uint8).reshape(found["shape"])  # to be written to, as any picture is


def _main() -> None:
    print("started", flush=True)
    try:
        picture_HW3, _ = decode_picture(sys.stdin.buffer.read(), Limits(**json.loads(sys.argv[1])))
    except RowFailed as failed:
        print(json.dumps({"reason": str(failed.reason), "detail": failed.detail}))
        return
    print(json.dumps({"shape": picture_HW3.shape}), flush=True)
    sys.stdout.buffer.write(picture_HW3.tobytes())


if __name__ == "__main__":
    _main()
