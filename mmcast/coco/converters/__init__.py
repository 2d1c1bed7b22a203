"""From the formats of public data sets and annotation tools to COCO."""
