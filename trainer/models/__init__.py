"""Networks: backbones that can be installed without a network at run time, and the classifier on top."""

from trainer.models.bilinear import bilinear_pool

__all__ = ["bilinear_pool"]
