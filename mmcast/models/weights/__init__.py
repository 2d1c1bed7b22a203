"""Weights: reading files without running code in them, loading them into models, and making start
weights.
"""
