"""The P4 programs on bmv2: compiled by p4c, each role on a `simple_switch` process of its own.

    programs    p4c-bm2-ss and simple_switch: where they are, and what the one makes for the other
    layout      what p4c says of a program: tables, keys, arguments, registers
    thrift      Thrift's binary protocol
    runtime     the calls that bmv2's control plane answers
    network     a network of a switch's own, which nothing outlives
    process     a switch and the two sockets to it
    plane       the data plane that the controllers use
    planes      where p4xos finds it
"""
