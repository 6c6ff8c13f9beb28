"""Data planes outside the node's own software: P4, and what runs, bills and proves it."""
