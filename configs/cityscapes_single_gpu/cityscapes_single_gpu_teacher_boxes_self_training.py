# Step 1b on one GPU: Grounding-DINO on labels and pseudo-labels, SAM2 frozen.
_base_ = './cityscapes_single_gpu_teacher_boxes_labeled.py'
model = dict(semi_train_cfg=dict(semi_weight=1.0))
sampler = dict(_base_.semi_dataloader.sampler, batch_size=2)
train_dataloader = dict(_base_.semi_dataloader, _delete_=True, batch_size=2, num_workers=4, sampler=sampler)
