"""Ordered steps on one command, which can be interrupted, resumed and repeated."""
