"""How long `maskmill --help` takes, from start to exit; beside it the interpreter alone and click's import.

Run: `.venv/bin/python tests/benchmarks/bench_start.py`
"""

import statistics
import subprocess
import sys
import time

TIMES = 11


def median_s(*command: str) -> float:
    times = []
    for _ in range(TIMES):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    print("| start | median of 11 |\n|---|---|")
    print(f"| `maskmill --help` | {median_s(sys.executable, '-m', 'maskmill', '--help'):.2f} s |")
    print(f"| `python -c 'import click'` | {median_s(sys.executable, '-c', 'import click'):.2f} s |")
    print(f"| `python -c pass` | {median_s(sys.executable, '-c', 'pass'):.2f} s |")
