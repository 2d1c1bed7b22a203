# Step 2: distill the frozen teacher's pseudo-labels into the student, l_semi and l_pxl on.
_base_ = [
    '../_base_/models/dsb2018_student.py', '../_base_/datasets/dsb2018_semi.py', '../_base_/schedules/toy.py',
    '../_base_/default_runtime.py'
]

model = dict(semi_train_cfg=dict(semi_weight=1.0))
load_from = 'work_dirs/cast_dsb2018/start/student_48queries.pth'  # the pipeline puts its own here
new_parameters = ['panoptic_head.cls_embed.']  # a nucleus is none of the start weights' classes
train_cfg = dict(max_iters=2500, val_interval=2500)
custom_hooks = [dict(type='PixelDiagnosticsHook', interval=50)]
