"""Drawing. Nothing here depends on detectors.

* ``boxes``: boxes, heatmaps and pairs of corners on photographs, and sheets of pictures
* ``figures``: curves and charts
* ``html``: pages
"""
