# The foundation teacher as it comes, prompted with the classes' names; for testing only.
_base_ = './cityscapes_teacher_adapt_labeled.py'
model = dict(pixel_contrast=None)
val_evaluator = [_base_.val_evaluator, _base_.official_metric]
test_evaluator = val_evaluator
