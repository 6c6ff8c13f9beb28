"""What stands beside a data plane: one `Backend` for all of them, and the controllers."""
