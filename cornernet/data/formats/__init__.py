"""Annotation formats.

coco             COCO-format folders: finding and reading annotations and images
annotation_file  one COCO annotation file as columns, cached
voc, yolo        readers of Pascal VOC and YOLO folders
importing        what both share: their result, and writing it as COCO format
check            a report about a folder
split            splitting an annotation file into train, val and test
"""
