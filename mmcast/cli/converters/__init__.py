"""The commands of ``mmcast convert``; a module for each data set or annotation tool."""
