# As toy_student_supervised.py, on DSB2018.
_base_ = '../dsb2018/dsb2018_student_refine.py'
load_from = 'configs/dsb2018/weights/nuclei_student.pth'
train_cfg = dict(max_iters=2600, val_interval=260)
default_hooks = dict(checkpoint=dict(save_best='coco/segm_mAP', rule='greater'))
