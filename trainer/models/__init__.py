"""Networks: backbones that can be installed without a network at run time, and the classifier on top."""
