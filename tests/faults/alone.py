"""One run in a process of its own, for what a fork cannot change: `python -m faults.alone CASE HOME OUT WORKERS`."""

import sys
from pathlib import Path

from faults.cases import CASES, Home

if __name__ == "__main__":
    case, home, out, workers = sys.argv[1:]
    Home(CASES[case], Path(home)).run(Path(out), workers=int(workers))
