# Step 1b on own images: the foundation teacher again, on labeled and pseudo-labeled images, l_semi = 1, l_pxl on.
_base_ = './foundation_grounded_sam_adapt_labeled.py'
model = dict(semi_train_cfg=dict(semi_weight=1.0))
train_dataloader = dict(
    _base_.semi_dataloader, _delete_=True, batch_size=2, num_workers=4,
    sampler=dict(_base_.semi_dataloader.sampler, batch_size=2))
