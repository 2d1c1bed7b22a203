# Step 3: refine the transferred student on the labels alone, l_semi = l_pxl = 0. A tenth of the learning rate
# and of the iterations; the paper does not say.
_base_ = ['../_base_/models/ade20k_student.py', '../_base_/datasets/ade20k.py',
          '../_base_/schedules/student.py']
load_from = 'work_dirs/cast_ade20k/transfer.pth'  # the pipeline puts its own here
optim_wrapper = dict(optimizer=dict(lr=1e-5, weight_decay=0.05))
train_cfg = dict(max_iters=16000, val_interval=16000)
