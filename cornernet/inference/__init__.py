"""From images to boxes: placing inputs, running the network, decoding, suppression, detections."""
