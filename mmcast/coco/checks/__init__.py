"""Looks for mistakes in a data set without changing it;
:func:`mmcast.coco.checks.run.check_dataset` runs all checks.
"""
