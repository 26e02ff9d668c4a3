"""Watching what the station does: rates, latencies, drift."""
