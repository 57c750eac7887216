"""What the SDK gains, measured against what one would write instead and against the floor; `python -m benchmarks`."""
