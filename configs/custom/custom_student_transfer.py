# Step 2: distill the frozen teacher's pseudo-labels into the student, l_semi and l_pxl on.
_base_ = [
    '../_base_/models/custom_student.py', '../_base_/datasets/custom_semi.py', '../_base_/schedules/toy.py',
    '../_base_/default_runtime.py'
]

model = dict(semi_train_cfg=dict(semi_weight=1.0))
load_from = 'work_dirs/cast_custom/start/student.pth'
new_parameters = ['panoptic_head.cls_embed.']  # the start weights know other classes
train_cfg = dict(max_iters=2400, val_interval=2400)
custom_hooks = [dict(type='PixelDiagnosticsHook', interval=50)]
