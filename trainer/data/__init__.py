"""Datasets: manifest, importers, grouped splits, near-twins, decoding."""
