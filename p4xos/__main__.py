"""`python -m p4xos`: the command line."""

import sys

from p4xos.cli import main

if __name__ == "__main__":
    sys.exit(main())
