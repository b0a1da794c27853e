"""From photographs to boxes.

* ``detect``: the whole test path, and its stages
* ``placement``: where a photograph lies on the network's input, and moving boxes between the two
* ``suppression``, ``suppression_compiled``: soft-NMS and the choice of the reported boxes
* ``detections``: the result, ``Detections``
"""
