"""`python -m maskmill` is the command `maskmill`."""

import sys

from .cli.main import main

sys.exit(main())
