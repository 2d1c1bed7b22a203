# The domain that the toy's pretrained weights were made on: all labels, 3,000 scenes of a clear day.
_base_ = './toy_cityscapes.py'
data_root = 'data/toy_cityscapes_source/'
source = dict(data_root=data_root)
train_dataloader = dict(batch_size=8, dataset=dict(source, ann_file='annotations/instances_train.json'))
val_dataloader = dict(dataset=source)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
