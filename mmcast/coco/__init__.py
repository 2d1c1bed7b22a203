"""COCO annotation files: reading, checking, splitting, and converting to them. Needs neither torch
nor mmdet.
"""
