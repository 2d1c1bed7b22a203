# Step 1b on one GPU: SAM2 on labels and pseudo-labels, the Grounding-DINO of before frozen.
_base_ = './ade20k_single_gpu_teacher_masks_labeled.py'
model = dict(semi_train_cfg=dict(semi_weight=1.0))
sampler = dict(_base_.semi_dataloader.sampler, batch_size=2)
train_dataloader = dict(_base_.semi_dataloader, _delete_=True, batch_size=2, num_workers=4, sampler=sampler)
load_from = 'work_dirs/cast_ade20k_single_gpu/boxes_self_training.pth'  # the pipeline puts its own here
