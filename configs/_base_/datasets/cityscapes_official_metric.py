# COCO's mask AP beside the AP of cityscapesscripts, which reads gtFine itself and leaves out what is smaller
# than 100 pixels.
_base_ = './cityscapes.py'

val_evaluator = [
    _base_.val_evaluator,
    dict(type='CityScapesMetric', seg_prefix=_base_.data_root + 'gtFine/val', outfile_prefix=None),
]
test_evaluator = val_evaluator
