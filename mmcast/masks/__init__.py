"""Geometry of masks in numpy: RLE, overlaps, tiles, boxes, confidence of pixels, drawing."""
