"""Evidence on one candidate: transfer, residual tests, changes, estimates from frames, and their columns."""
