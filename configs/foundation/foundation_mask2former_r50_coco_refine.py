# Step 3 on own images with the COCO-trained Mask2Former R-50: refine it on the labels alone, at a tenth of the
# learning rate.
_base_ = ['../_base_/models/mask2former_r50_coco.py', '../_base_/models/custom_classes.py',
          '../_base_/datasets/custom.py', '../_base_/schedules/coco_student.py']
model = dict(detector=_base_.custom, pixel_contrast=None)
load_from = 'work_dirs/cast_custom_foundation/transfer.pth'  # the pipeline puts its own here
optim_wrapper = dict(optimizer=dict(lr=5e-6))
train_cfg = dict(max_iters=500, val_interval=500)
train_dataloader = dict(num_workers=4)
