# Synthetic microscopy images of any stain and light, all labeled; otherwise as DSB2018.
_base_ = './dsb2018.py'
data_root = 'data/toy_nuclei/'
images = dict(img=data_root + 'images/')
train_file = data_root + 'annotations/instances_train.json'
val_file = data_root + 'annotations/instances_val.json'

train_dataloader = dict(dataset=dict(ann_file=train_file, data_prefix=images))
val_dataloader = dict(dataset=dict(ann_file=val_file, data_prefix=images))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=val_file)
test_evaluator = val_evaluator
