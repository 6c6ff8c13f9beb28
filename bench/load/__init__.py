"""A load generator for RESP servers: closed and open loops, latencies from intended send times.

`run` (in `running`) is what a scenario calls: it starts one process for each plan, waits, and
merges what they measured.

    plan         what is asked of a generator; JSON
    keys         which record an operation is for: uniform, zipfian, latest, in turn
    workloads    YCSB's mixes A to F, and requests as bytes
    schedule     when requests of an open loop are meant to be sent
    generator    sends, receives, measures; knows neither sockets nor the clock
    network      sockets and clock: one epoll for all clients
    outcome      what was measured: histograms and counts; merging, JSON, when a run is void
    running      generators as processes of their own
    __main__     such a process
"""
