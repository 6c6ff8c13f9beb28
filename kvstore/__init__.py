"""A replicated key-value store that speaks Redis' protocol, on a P4xos log."""
