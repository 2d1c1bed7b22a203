_base_ = ['./toy_student.py', './custom_classes.py']
model = dict(detector=_base_.custom)
