_base_ = ['./cast_lite.py', './custom_classes.py']
model = dict(detector=_base_.custom, pixel_contrast=_base_.pixel_contrast)
