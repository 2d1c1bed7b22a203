# The COCO-trained Mask2Former R-50 on the labels alone; read at its best checkpoint.
_base_ = '../foundation/foundation_mask2former_r50_coco_refine.py'
load_from = 'work_dirs/cast_custom_online/02_start/student.pth'  # fit_coco_student's; the pipeline puts its own here
optim_wrapper = dict(optimizer=dict(lr=5e-5))
train_cfg = dict(max_iters=5000, val_interval=500)
default_hooks = dict(checkpoint=dict(save_best='coco/segm_mAP', rule='greater'))
