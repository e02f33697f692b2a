"""Numerics on plain arrays: decoding, Fourier structure, similarity. No labels, no torch, no plots."""
