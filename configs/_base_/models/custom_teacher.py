_base_ = ['./lite_teacher.py', './custom_classes.py']
# Without the pixel loss, which takes a fifth of the time and gave nothing: docs/results.md.
model = dict(detector=_base_.custom, pixel_contrast=dict(_base_.pixel_contrast, loss_weight=0.0))
