# The same student, the same initial weights and as many iterations as transfer and refinement together, on
# the 10 % of labels alone; read at its best checkpoint.
_base_ = '../toy/toy_student_refine.py'
load_from = 'configs/toy/weights/toy_student.pth'
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_iters=1000, val_interval=100)
default_hooks = dict(checkpoint=dict(save_best='coco/segm_mAP', rule='greater'))
