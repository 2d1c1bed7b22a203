_base_ = ['./lite_teacher.py', './custom_classes.py']
model = dict(detector=_base_.custom, pixel_contrast=_base_.pixel_contrast)
