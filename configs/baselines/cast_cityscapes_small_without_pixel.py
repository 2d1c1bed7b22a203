# configs/cast_cityscapes_small.py without the pixel loss in any step.
_base_ = '../cast_cityscapes_small.py'
work_dir = 'work_dirs/cast_cityscapes_small_without_pixel'
step_options = {'model.pixel_contrast': None}
