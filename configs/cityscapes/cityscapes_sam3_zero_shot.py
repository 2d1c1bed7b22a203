# SAM3 as it comes, asked for the classes' names; for testing only.
_base_ = './cityscapes_sam3_adapt_labeled.py'
model = dict(pixel_contrast=None)
val_evaluator = [_base_.val_evaluator, _base_.official_metric]
test_evaluator = val_evaluator
