"""A person in the loop: the least sure pseudo-labels, corrected in an annotation tool."""
