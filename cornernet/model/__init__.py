"""The network, from normalised images to candidate boxes.

* ``detector``: :class:`Detector`, which runs a backbone's stacks and a head;
* ``backbones``, ``heads``: the interchangeable parts, with a registry each;
* ``fast``: a faster copy of a detector, for inference only;
* ``costs``: multiply-adds and parameters of a configuration's network.
"""
