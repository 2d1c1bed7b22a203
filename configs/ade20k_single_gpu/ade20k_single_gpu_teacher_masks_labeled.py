# Step 1a on one GPU: SAM2 on the labels, the Grounding-DINO of before frozen.
_base_ = ['../_base_/models/grounded_sam_masks.py', '../_base_/datasets/ade20k_teacher.py',
          '../_base_/schedules/single_gpu_masks.py']
prompts = dict(grounding_dino=dict(test_cfg=dict(classes_per_prompt=40)), classes=_base_.classes)
model = dict(detector=prompts)
load_from = 'work_dirs/cast_ade20k_single_gpu/boxes_labeled.pth'  # the pipeline puts its own here
new_parameters = ['pixel_contrast.']  # that of before was for Swin's features
train_dataloader = dict(batch_size=2, num_workers=4)
