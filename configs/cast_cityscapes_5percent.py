# As cast_cityscapes.py, with 5 % of the labels.
_base_ = './cast_cityscapes.py'
work_dir = 'work_dirs/cast_cityscapes_5percent'
variables = dict(percent=5)
