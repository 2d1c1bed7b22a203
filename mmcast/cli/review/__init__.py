"""The commands ``mmcast review``."""
