# The same student, the same initial weights and as many iterations as transfer and refinement together, on the 10 % of
# labels alone; read at its best checkpoint.
_base_ = [
    '../_base_/models/dsb2018_student.py', '../_base_/datasets/dsb2018.py', '../_base_/schedules/toy.py',
    '../_base_/default_runtime.py'
]

model = dict(pixel_contrast=None)
load_from = 'configs/dsb2018/weights/nuclei_student.pth'
optim_wrapper = dict(optimizer=dict(lr=2e-4))
train_cfg = dict(max_iters=2600, val_interval=260)
default_hooks = dict(checkpoint=dict(save_best='coco/segm_mAP', rule='greater'))
