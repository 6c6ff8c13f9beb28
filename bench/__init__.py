"""Measurements of the project; `make bench` runs them and prints what it saw.

Modules:

    cli              the command line: which scenarios, how often, where the results go
    scenarios        the table of scenarios
    micro roles consensus catchup hops kv ycsb checkpoint scale idle failover ...
                     one scenario each
    floor            a scenario too: what the machine costs; echo is its other process
    load             a package of its own: the load generator, open and closed loops
    histogram        latencies in log-linear buckets, merged without loss
    results          metrics with what is asked of them, curves, the table, JSON lines
    progress         what is told on stderr meanwhile
    plots report     a PNG for each curve; one HTML file
    compare          two results beside each other
    environment      the machine, and whether it is quiet enough to believe the figures
    processes        child processes that never outlive the run, and what they cost
    store_cluster    three nodes of the store as processes
    role_cluster     a group whose roles are processes, and a learner that counts
    closed_loop      so many values in flight through such a group
    stand_in         one role as a process, and this process in the place of the others
    writers          clients that remember what was acknowledged to them
    errors           what makes a run void
    chaos            a package of its own: faults and a verdict (`make chaos`)
    redis_benchmark  the load generator of Debian's redis-tools
"""
