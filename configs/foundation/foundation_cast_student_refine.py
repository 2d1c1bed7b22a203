# Step 3 on own images: refine the transferred student on the labels alone, at a tenth of the learning rate.
_base_ = ['../_base_/models/cast_student.py', '../_base_/models/custom_classes.py',
          '../_base_/datasets/custom.py', '../_base_/schedules/student.py']
model = dict(detector=_base_.custom)
load_from = 'work_dirs/cast_custom_foundation/transfer.pth'  # the pipeline puts its own here
optim_wrapper = dict(optimizer=dict(lr=5e-6))
train_dataloader = dict(num_workers=4)
