"""Metrics that mmdet lacks; none yet."""
