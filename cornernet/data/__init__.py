"""Data: datasets, augmentation, the loader."""
