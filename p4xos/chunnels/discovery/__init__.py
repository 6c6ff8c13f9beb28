"""The discovery service: what is there for Chunnels, who holds it, and what is left of it.

`book` is what it knows, pure; `service` a process at a Unix socket; `client` what runtimes use.
"""

VERSION = 2
"""Of the service; every request tells it."""
