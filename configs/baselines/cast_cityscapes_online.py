# configs/cast_cityscapes.py and, beside it, online teachers: the student's own average alone, and on top of the
# frozen teacher's labels. Three students of 90,000 iterations.
_base_ = '../cast_cityscapes.py'
work_dir = 'work_dirs/cast_cityscapes_online'
start = dict(
    kind='train', after='pseudo_label_2',
    cfg_options={'model.detector.backbone.init_cfg.checkpoint': '{start.dinov2}'})
steps = dict(
    online=dict(start, config='baselines/cityscapes_student_online.py'),
    transfer_online=dict(
        start, config='baselines/cityscapes_student_online_pseudo.py',
        pseudo_labels='{pseudo_label_2.annotations}', thresholds='{thresholds_2.thresholds}'))
summary = dict(
    online='student, online teacher alone',
    transfer_online='student, transferred with an online teacher')
