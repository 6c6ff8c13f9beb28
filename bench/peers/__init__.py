"""This project and its peers under one load, in one run, on one machine.

`peer.py` says what a peer is; each peer has a module. `scenario.py` runs them one after the other.
"""
