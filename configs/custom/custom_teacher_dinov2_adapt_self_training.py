# Step 1b: the teacher again from the start, on labeled and pseudo-labeled images, l_semi = 1.
_base_ = './custom_teacher_dinov2_adapt_labeled.py'
model = dict(semi_train_cfg=dict(semi_weight=1.0))
train_dataloader = dict(_base_.semi_dataloader, _delete_=True)
train_cfg = dict(max_iters=1000, val_interval=1000)
