"""Annotation formats: reading, importing, checking and splitting."""
