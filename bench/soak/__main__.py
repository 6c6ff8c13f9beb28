"""`python -m bench.soak`: the command line."""

import sys

from bench.soak.cli import main

if __name__ == "__main__":
    sys.exit(main())
