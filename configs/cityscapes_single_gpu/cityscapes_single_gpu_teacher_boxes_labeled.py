# Step 1a on one GPU: Grounding-DINO on the labels, SAM2 frozen.
_base_ = ['../_base_/models/grounded_sam_boxes.py', '../_base_/datasets/cityscapes_teacher.py',
          '../_base_/schedules/single_gpu_boxes.py']
model = dict(detector=dict(classes=_base_.classes))
load_from = 'work_dirs/cast_cityscapes/start/teacher.pth'  # the pipeline puts its own here
train_dataloader = dict(batch_size=2, num_workers=4)
