"""The verifier: P4 programs as formulas about one packet, and what is proved of them."""
