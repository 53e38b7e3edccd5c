"""Decodes in a separate process, for a unit where some picture crashed a worker.

The child runs this module as a program: picture on standard input, pixels on standard output. It is not a fork: Dask
workers may not fork, and a fork would inherit memory that may have caused the crash.
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

PATIENCE_S = 120.0  # a decoder that takes longer is hanging


def decode_carefully(data: bytes, limits: Limits = DEFAULT_LIMITS) -> UInt8[np.ndarray, "H W 3"]:
    """Like `decode_picture`; the row fails as crashed if the process dies or takes too long."""
    command = [sys.executable, "-P", "-m", __name__, json.dumps(asdict(limits))]
    try:
        child = subprocess.run(command, input=data, capture_output=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        raise RowFailed(Reason.CRASHED, f"decoding took longer than {PATIENCE_S:.0f} s") from None
    started, _, answer = child.stdout.partition(b"\n")
    if not started:
        raise RuntimeError(f"the decoding process did not start: {child.stderr.decode(errors='replace').strip()}")
    header, _, pixels = answer.partition(b"\n")
    if child.returncode or not header:
        raise RowFailed(Reason.CRASHED, f"decoding ended its process with {child.returncode}")
    result = json.loads(header)
    if "reason" in result:
        raise RowFailed(Reason(result["reason"]), result["detail"])
    return np.frombuffer(bytearray(pixels), np.uint8).reshape(result["shape"])  # writable, like any picture


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
