# Step 2: distill the frozen teacher's pseudo-labels into the student, l_semi and l_pxl on.
_base_ = ['../_base_/models/dsb2018_student.py', '../_base_/datasets/dsb2018.py',
          '../_base_/schedules/toy.py']
model = dict(semi_train_cfg=dict(semi_weight=1.0))
load_from = 'configs/dsb2018/weights/nuclei_student.pth'
optim_wrapper = dict(optimizer=dict(lr=2e-4))
train_cfg = dict(max_iters=2000, val_interval=2000)
train_dataloader = dict(_base_.semi_dataloader, _delete_=True)
