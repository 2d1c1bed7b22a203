# As cast_ade20k.py, with 5 % of the labels.
_base_ = './cast_ade20k.py'
work_dir = 'work_dirs/cast_ade20k_5percent'
variables = dict(percent=5)
