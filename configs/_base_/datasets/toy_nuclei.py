# Drawn microscopy images of any stain and light, all labeled; otherwise as DSB2018.
_base_ = './dsb2018.py'

data_root = 'data/toy_nuclei/'

train_dataloader = dict(
    dataset=dict(
        ann_file=data_root + 'annotations/instances_train.json', data_prefix=dict(img=data_root + 'images/')))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
