"""Other projects' tests as judges of the store: Redis' own suite, and redis-py's.

Neither is part of this project: paths to their sources are given on the command line.
"""
