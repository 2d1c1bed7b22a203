# The same student, the same initial weights and as many iterations as transfer and refinement together, on the 10 % of
# labels alone; read at its best checkpoint.
_base_ = [
    '../_base_/models/toy_student.py', '../_base_/datasets/toy_cityscapes.py', '../_base_/schedules/toy.py',
    '../_base_/default_runtime.py'
]

model = dict(pixel_contrast=None)
load_from = 'configs/toy/weights/toy_student.pth'
train_cfg = dict(max_iters=1000, val_interval=100)
default_hooks = dict(checkpoint=dict(save_best='coco/segm_mAP', rule='greater'))
