"""Real processes under faults, and a verdict on what clients saw; `make chaos` runs it.

Modules:

    cli        the command line
    episode    one seed: a cluster, rounds of faults under load, the verdict on each
    schedule   which fault comes when
    faults     what is done to the cluster, a class a fault
    cluster    nodes as processes on hosts of their own; waiting until they serve again
    clients    the process of the clients
    hosts      network and mount namespaces, the router between them, rules on it
    relay      delays, repeats, reorders packets; a process on the router
    preload    failing syncs and wrong clocks, by a shared object (preload.c)
"""
