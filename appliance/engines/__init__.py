"""Inference engines behind one small interface. Each is imported only in the engine process that runs it."""
