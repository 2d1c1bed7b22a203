# configs/cast_toy.py and, beside it, online teachers: the student's own average alone, and on top of the
# frozen teacher's labels.
_base_ = '../cast_toy.py'
work_dir = 'work_dirs/cast_toy_online'
steps = dict(
    online=dict(
        kind='train', config='baselines/toy_student_online.py', load_from='{pretrained_student}',
        after='pseudo_label_2'),
    transfer_online=dict(
        kind='train', config='baselines/toy_student_online_pseudo.py', load_from='{pretrained_student}',
        pseudo_labels='{pseudo_label_2.annotations}', thresholds='{thresholds_2.thresholds}',
        after='pseudo_label_2'))
summary = dict(
    online='student, online teacher alone',
    transfer_online='student, transferred with an online teacher')
