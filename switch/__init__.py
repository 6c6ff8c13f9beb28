"""Data planes outside the node's own software: P4 programs, and what runs, bills and proves them."""
