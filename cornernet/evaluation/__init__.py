"""Evaluation on a data set: COCO's AP and AR, AP of corners, and scores of single images."""
