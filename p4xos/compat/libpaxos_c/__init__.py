"""libpaxos' C interface on P4xos: `evpaxos.h` and `libevpaxos.so`, built by `make libpaxos`.

    include/    what programs include; evpaxos/p4xos.h is what P4xos tells besides
    src/        evlearner evreplica roles submit paxos     the interface
                submitter deliverer                        exactly once; in order
                link                                       one connection: frames, greeting, again
                frame head buffer sockets events config    what these stand on
    examples/   a client that measures, a replicated counter
"""
