"""Geometry of masks in numpy: run lengths, overlaps, tiles, boxes, confidence of pixels, drawing."""
