# The student from the same start on the labels alone, as many iterations as transfer and refinement together; read
# at its best checkpoint.
_base_ = '../cityscapes_small/cityscapes_small_student_refine.py'
load_from = 'work_dirs/cast_cityscapes_small/start/student.pth'
new_parameters = ['panoptic_head.cls_embed.']  # the start weights have no classes
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_iters=1800, val_interval=300)
default_hooks = dict(checkpoint=dict(save_best='coco/segm_mAP', rule='greater'))
