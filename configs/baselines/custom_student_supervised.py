# cast_custom.py's student from the same start on the labels alone, as many iterations as transfer and refine
# together; read at its best checkpoint.
_base_ = '../custom/custom_student_refine.py'
load_from = 'work_dirs/cast_custom/start/student.pth'
new_parameters = ['panoptic_head.cls_embed.']  # the start weights know other classes
optim_wrapper = dict(optimizer=dict(lr=5e-4))
train_cfg = dict(max_iters=1400, val_interval=280)
default_hooks = dict(checkpoint=dict(save_best='coco/segm_mAP', rule='greater'))
