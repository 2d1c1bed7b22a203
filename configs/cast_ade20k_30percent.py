# As cast_ade20k.py, with 30 % of the labels.
_base_ = './cast_ade20k.py'
work_dir = 'work_dirs/cast_ade20k_30percent'
variables = dict(percent=30)
