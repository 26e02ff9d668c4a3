"""General model servers on the same model and frames as the daemon: `python -m benchmarks.peers --bundle parts.lgb`."""
