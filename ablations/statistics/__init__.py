"""Intervals, resampling and claims."""
