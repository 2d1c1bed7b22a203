# Step 1b: the adapted teacher on labeled and pseudo-labeled images, l_semi = 1, l_pxl on. The paper starts
# again from the foundation model; within these minutes that loses what 1a has gained.
_base_ = './dsb2018_teacher_adapt_labeled.py'
model = dict(semi_train_cfg=dict(semi_weight=1.0))
train_dataloader = dict(_base_.semi_dataloader, _delete_=True)
load_from = 'work_dirs/cast_dsb2018/adapt_labeled.pth'  # the pipeline puts its own here
optim_wrapper = dict(optimizer=dict(lr=1e-4))
train_cfg = dict(max_iters=400, val_interval=400)
