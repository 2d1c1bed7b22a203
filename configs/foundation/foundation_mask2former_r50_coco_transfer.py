# Step 2 on own images with the COCO-trained Mask2Former R-50 as the student: distill the frozen teacher's
# pseudo-labels into it, l_semi and l_pxl on. Its mask head is trained already, so few iterations do.
_base_ = ['../_base_/models/mask2former_r50_coco.py', '../_base_/models/custom_classes.py',
          '../_base_/datasets/custom.py', '../_base_/schedules/coco_student.py']
model = dict(detector=_base_.custom, semi_train_cfg=dict(semi_weight=1.0))
load_from = 'work_dirs/cast_custom_foundation/start/student.pth'  # fit_coco_student's; the pipeline puts its own here
train_dataloader = dict(_base_.semi_dataloader, _delete_=True, num_workers=4)
