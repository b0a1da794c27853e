"""Weights on disk.

* ``checkpoints``: reading and writing weights, in our format and in those of other projects
* ``foreign``: the names and conventions of the authors' CornerNet, CornerNet-Lite and mmdetection
* ``unfinished``: the newest checkpoint of a run that is being trained, was stopped or broke off
* ``export``: ONNX files, ``torch.export`` programs and AOTInductor packages
"""
