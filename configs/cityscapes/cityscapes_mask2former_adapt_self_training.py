# Step 1b with another teacher: Mask2Former Swin-L again, on labels and pseudo-labels, l_semi = 1, l_pxl on.
_base_ = './cityscapes_mask2former_adapt_labeled.py'
model = dict(semi_train_cfg=dict(semi_weight=1.0))
train_dataloader = dict(_base_.semi_dataloader, _delete_=True)
