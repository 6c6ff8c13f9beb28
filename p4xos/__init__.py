"""Distributed consensus as match-action on batches; docs/ARCHITECTURE.md is the map."""
