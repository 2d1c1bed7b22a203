# Step 1a on one GPU: Grounding-DINO on the labels, SAM2 frozen.
_base_ = ['../_base_/models/grounded_sam_boxes.py', '../_base_/datasets/ade20k_teacher.py',
          '../_base_/schedules/single_gpu_boxes.py']
prompts = dict(grounding_dino=dict(test_cfg=dict(classes_per_prompt=40)), classes=_base_.classes)
model = dict(detector=prompts)
load_from = 'work_dirs/cast_ade20k/start/teacher.pth'  # the pipeline puts its own here
train_dataloader = dict(batch_size=2, num_workers=4)
