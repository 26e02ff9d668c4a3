"""The workstation side: from images and doubtful labels to a calibrated INT8 bundle. The only home of torch."""
