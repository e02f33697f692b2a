"""Files of weights: their headers, digests and tensors, read without executing anything."""
