"""The detector: backbone stacks, heads, a faster form for inference, and its cost in multiply-adds and parameters."""
