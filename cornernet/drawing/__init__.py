"""Drawing. Nothing here depends on detectors.

* ``escapes``: names from outside in CSV, Markdown, LaTeX, figures and pictures
* ``boxes``: boxes, heatmaps and pairs of corners on photographs, and sheets of pictures
* ``figures``: curves and charts
* ``html``: pages
"""
