# As cast_cityscapes.py, with 30 % of the labels.
_base_ = './cast_cityscapes.py'
work_dir = 'work_dirs/cast_cityscapes_30percent'
variables = dict(percent=30)
