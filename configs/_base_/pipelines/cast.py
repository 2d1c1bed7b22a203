# What the pipelines share: where the step configs find data, labels and pseudo-labels, and the rows of the table.
data_roots = {
    'val_dataloader.dataset.data_root': '{data_root}',
    'test_dataloader.dataset.data_root': '{data_root}',
}
coco_metric = {
    'val_evaluator.ann_file': '{data_root}/annotations/instances_val.json',
    'test_evaluator.ann_file': '{data_root}/annotations/instances_val.json',
}
labeled = {
    'train_dataloader.dataset.data_root': '',
    'train_dataloader.dataset.ann_file': '{data.labeled}',
    'train_dataloader.dataset.data_prefix.img': '{data.train_images}',
}
semi = {
    'train_dataloader.dataset.datasets.0.data_root': '',
    'train_dataloader.dataset.datasets.0.ann_file': '{data.labeled}',
    'train_dataloader.dataset.datasets.0.data_prefix.img': '{data.train_images}',
    'train_dataloader.dataset.datasets.1.data_prefix.img': '{data.train_images}',
}
pseudo = 'train_dataloader.dataset.datasets.1.ann_file'

summary = [
    dict(row='teacher, adapted on labels (1a)', step='adapt_labeled'),
    dict(row='teacher, self-trained (1b)', step='adapt_self_training'),
    dict(row='student, transferred (2)', step='transfer'),
    dict(row='student, refined (3)', step='refine'),
]
