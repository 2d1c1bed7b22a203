# Step 2: distill the frozen teacher's pseudo-labels into the student, l_semi and l_pxl on.
_base_ = [
    '../_base_/models/toy_student.py', '../_base_/datasets/toy_cityscapes_semi.py', '../_base_/schedules/toy.py',
    '../_base_/default_runtime.py'
]

load_from = 'configs/toy/weights/toy_student.pth'
model = dict(semi_train_cfg=dict(semi_weight=1.0))
train_cfg = dict(max_iters=900, val_interval=900)
custom_hooks = [dict(type='PixelDiagnosticsHook', interval=50)]
