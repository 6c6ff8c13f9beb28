"""Distributed consensus as match-action on batches; docs/ARCHITECTURE.md is the map."""

import os

# numpy starts a linear-algebra thread for each core, which spins now and then; nothing here
# multiplies matrices. It reads this when it is imported first.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
