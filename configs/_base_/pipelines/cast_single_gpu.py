# The method on one GPU: the components of the teacher learn one after the other. The two new steps move in front
# of those that use their checkpoints.
_base_ = './cast_foundation.py'
boxes = dict(kind='train', load_from='{foundation_teacher}', cfg_options='{teacher_options}')
masks_labeled = '{teacher}_masks_labeled.py'
masks_self_training = '{teacher}_masks_self_training.py'
steps = dict(
    boxes_labeled=dict(boxes, config='{teacher}_boxes_labeled.py'),
    adapt_labeled=dict(config=masks_labeled, load_from='{boxes_labeled.checkpoint}'),
    pseudo_label_1=dict(config=masks_labeled),
    folds=dict(train=['boxes_labeled', 'adapt_labeled']),
    boxes_self_training=dict(
        boxes,
        enabled='{self_training}',
        config='{teacher}_boxes_self_training.py',
        pseudo_labels='{pseudo_label_1.annotations}',
        thresholds='{thresholds_1.thresholds}'),
    adapt_self_training=dict(config=masks_self_training, load_from='{boxes_self_training.checkpoint}'),
    pseudo_label_2=dict(config=masks_self_training))
