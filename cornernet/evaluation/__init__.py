"""Evaluation on a data set.

* ``evaluate``: COCO's AP and AR, error types, latency of the test path
* ``matching``: boxes matched to objects, once for all metrics of boxes
* ``corners``: average precision of single corners
* ``image_scores``: scores of single images
"""
