# Step 1b: the foundation teacher again, on labeled and pseudo-labeled images, l_semi = 1, l_pxl on.
_base_ = [
    '../_base_/models/dsb2018_teacher.py', '../_base_/datasets/dsb2018_semi.py', '../_base_/schedules/toy.py',
    '../_base_/default_runtime.py'
]

model = dict(semi_train_cfg=dict(semi_weight=1.0))
load_from = 'configs/dsb2018/weights/nuclei_teacher.pth'
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_iters=800, val_interval=800)
custom_hooks = [dict(type='PixelDiagnosticsHook', interval=50)]
