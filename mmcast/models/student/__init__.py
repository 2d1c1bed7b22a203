"""The compact student: a Mask2Former of standard operators and its parts."""
