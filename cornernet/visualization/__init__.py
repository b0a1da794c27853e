"""Pictures for people.

* ``inspection``: the heatmaps and pairs of corners that a detector sees in a photograph
* ``sheets``: pictures of what training sees, and of what a detector finds
"""
