"""Drawing boxes, curves and pages. Knows nothing of detectors."""
