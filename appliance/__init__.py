"""The edge side: a fail-safe daemon that judges every part in front of a line camera. Never imports torch."""
