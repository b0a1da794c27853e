"""Weights on disk: ours, the authors', CornerNet-Lite's and mmdetection's, and exported programs."""
