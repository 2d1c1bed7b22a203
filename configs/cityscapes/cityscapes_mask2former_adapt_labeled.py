# Step 1a with another teacher: Mask2Former Swin-L on the labeled images, l_semi = 0, l_pxl on.
_base_ = ['../_base_/models/mask2former_swin_l.py', '../_base_/datasets/cityscapes.py',
          '../_base_/schedules/student.py']
load_from = (
    'weights/mask2former_swin-l-p4-w12-384-in21k_16xb1-lsj-100e_coco-panoptic_20220407_104949-82f8d28d.pth')
new_parameters = ['panoptic_head.cls_embed.']  # COCO's 133 classes are not these
train_cfg = dict(max_iters=5000, val_interval=5000)
default_hooks = dict(checkpoint=dict(interval=1000))
