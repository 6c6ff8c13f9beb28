"""The whole cluster in one thread and virtual time, driving the real roles from one seed.

    scenario    what a seed stands for
    network     what becomes of a batch between two processes
    processes   the real roles, and what their drivers keep for them
    world       the run: events, crashes, partitions, load; then healing and liveness

`p4xos.testing.checkers` judges every step; `p4xos.testing.simulate` is the command line.
"""
