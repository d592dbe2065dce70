"""Weights in files: arrays as safetensors and PyTorch pickles, and whole networks."""
