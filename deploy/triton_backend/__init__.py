"""The Python parts of a Triton model repository: deploy.triton copies them, Triton's Python backend runs them."""
