"""From the formats of public data sets to COCO."""
