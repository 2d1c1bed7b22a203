# The same student, the same initial weights and 100 iterations more than transfer and refinement together, on the 10 %
# of labels alone; read at its best checkpoint.
_base_ = [
    '../_base_/models/dsb2018_student.py', '../_base_/datasets/dsb2018.py', '../_base_/schedules/toy.py',
    '../_base_/default_runtime.py'
]

model = dict(pixel_contrast=None)
load_from = 'work_dirs/cast_dsb2018/start/student_48queries.pth'  # the pipeline puts its own here
new_parameters = ['panoptic_head.cls_embed.']  # a nucleus is none of the start weights' classes
train_cfg = dict(max_iters=2600, val_interval=300)
default_hooks = dict(checkpoint=dict(save_best='coco/segm_mAP', rule='greater'))
