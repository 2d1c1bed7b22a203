"""Synthetic (procedurally generated) scenes, and the recipe of the weights that are trained on
them.
"""
