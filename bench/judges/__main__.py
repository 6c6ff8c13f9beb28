"""`python -m bench.judges`: the command line."""

import sys

from bench.judges.cli import main

if __name__ == "__main__":
    sys.exit(main())
