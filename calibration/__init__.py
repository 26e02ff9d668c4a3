"""What gives pixels and scores a meaning: preprocessing, temperature, metrics, decisions and risk (numpy only)."""
