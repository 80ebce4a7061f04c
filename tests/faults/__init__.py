"""Faults by the hundred, drawn by seed, on a federation of real processes: `make faults`, docs/reliability.md."""
