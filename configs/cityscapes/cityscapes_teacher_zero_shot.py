# The foundation teacher as it comes, prompted with the classes' names; for testing only.
_base_ = './cityscapes_teacher_adapt_labeled.py'

model = dict(pixel_contrast=None)

# COCO's mask AP and that of cityscapesscripts.
val_evaluator = [
    _base_.val_evaluator,
    dict(type='CityScapesMetric', seg_prefix=_base_.data_root + 'gtFine/val', outfile_prefix=None),
]
test_evaluator = val_evaluator
