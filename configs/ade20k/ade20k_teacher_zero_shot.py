# The foundation teacher as it comes, prompted with the classes' names; for testing only.
_base_ = './ade20k_teacher_adapt_labeled.py'
model = dict(pixel_contrast=None)
