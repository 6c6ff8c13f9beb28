"""`ordered_mcast()`: one order for all messages, at all members: the replicated log as a layer."""
