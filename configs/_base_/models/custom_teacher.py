_base_ = ['./toy_teacher.py', './custom_classes.py']
model = dict(detector=_base_.custom)
