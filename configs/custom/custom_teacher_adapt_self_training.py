# Step 1b: the teacher again from the start, on labeled and pseudo-labeled images, l_semi = 1, l_pxl on.
_base_ = [
    '../_base_/models/custom_teacher.py', '../_base_/datasets/custom_semi.py', '../_base_/schedules/toy.py',
    '../_base_/default_runtime.py'
]

model = dict(semi_train_cfg=dict(semi_weight=1.0))
load_from = 'work_dirs/cast_custom/start/teacher.pth'
new_parameters = ['panoptic_head.cls_embed.']  # the start weights know other classes
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_iters=1500, val_interval=1500)
custom_hooks = [dict(type='PixelDiagnosticsHook', interval=50)]
