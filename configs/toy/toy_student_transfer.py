# Step 2: distill the frozen teacher's pseudo-labels into the student, l_semi and l_pxl on.
_base_ = ['../_base_/models/toy_student.py', '../_base_/datasets/toy_cityscapes.py',
          '../_base_/schedules/toy.py']
model = dict(semi_train_cfg=dict(semi_weight=1.0))
load_from = 'configs/toy/weights/toy_student.pth'
train_cfg = dict(max_iters=900, val_interval=900)
train_dataloader = dict(_base_.semi_dataloader, _delete_=True)
