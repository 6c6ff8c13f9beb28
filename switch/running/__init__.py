"""Runs a program by itself: on UDP sockets, or on a file of packets."""
