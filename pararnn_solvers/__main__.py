"""``python -m pararnn_solvers`` is the command ``pararnn-solvers``."""

import sys

from pararnn_solvers.cli import main

if __name__ == "__main__":
    sys.exit(main())
