"""Faces of other systems: programs written for them go on, on this log."""
