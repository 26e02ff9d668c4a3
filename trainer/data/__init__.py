"""Datasets: manifest, importers, grouped splits, near-twins, decoding, resampling."""

from trainer.data.sampling import smote

__all__ = ["smote"]
