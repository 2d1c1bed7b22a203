# Step 1b: the foundation teacher again, on labeled and pseudo-labeled images, l_semi = 1, l_pxl on.
_base_ = [
    '../_base_/models/grounded_sam.py', '../_base_/datasets/cityscapes_teacher_semi.py', '../_base_/schedules/teacher.py',
    '../_base_/default_runtime.py'
]

model = dict(
    detector=dict(classes=_base_.classes),
    semi_train_cfg=dict(semi_weight=1.0))
load_from = 'work_dirs/cast_cityscapes/start/teacher.pth'  # the pipeline puts its own here
default_hooks = dict(checkpoint=dict(interval=500, max_keep_ckpts=1))  # 6.7 GB with the optimizer's state
