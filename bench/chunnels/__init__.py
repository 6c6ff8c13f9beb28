"""What Chunnels cost, and Figures 3, 4 and 5 of their paper: `python -m bench chunnels`."""
