#!/usr/bin/env bash
# encord 0.1.211 (Encord's SDK): `Project.export_coco_labels` gives the objects of videos the attributes of other
# frames, or none. An attribute that changes within a track ("occluded") is kept by the number of the frame; the
# exporter looks it up by the number of the image in the COCO file, which counts labeled frames over all videos, and
# only among the first video's. Where the first video is labeled from frame 0 on, without a gap, it is right. Labeled
# from frame 4 on, an object that is occluded from frame 9 on is so from frame 13 on; of every tenth frame only the
# first has its attribute; and all other videos have null, which is also what a question that nobody answered has. Who
# leaves occluded objects out of training keeps them. And a rotatable box is written as if it were not turned:
# `segmentation` and `bbox` are the same at any angle. A bar of 60 x 10 pixels, turned by 90 degrees, has an IoU of 0.09
# with its own polygon. The angle is in `attributes`, where readers of COCO do not look. No message is given. Run
# without the server, by the label row's own classes and the exporter that the method calls.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'encord[coco]==0.1.211'
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import dataclasses
import sys
from types import SimpleNamespace

from encord.objects import OntologyStructure, RadioAttribute, Shape
from encord.objects.coordinates import PointCoordinate, PolygonCoordinates, RotatableBoundingBoxCoordinates
from encord.objects.ontology_labels_impl import LabelRowV2
from encord.orm.label_row import LabelRowMetadata, LabelStatus
from encord.utilities.coco.exporter import CocoExporter
from pycocotools import mask as api

SIDE = 100
ontology = OntologyStructure()
car = ontology.add_object('car', Shape.POLYGON)
occluded = car.add_attribute(RadioAttribute, 'occluded', dynamic=True)
answers = {name: occluded.add_option(name) for name in ('yes', 'no')}
bar = ontology.add_object('bar', Shape.ROTATABLE_BOUNDING_BOX)
SQUARE = PolygonCoordinates(values=[PointCoordinate(x, y) for x, y in ((0.1, 0.1), (0.5, 0.1), (0.5, 0.5), (0.1, 0.5))])


def video(name):
    """The label row of a video of 100 frames, without labels."""
    known = dict(
        label_hash=name, branch_name='main', data_hash=name, dataset_hash='set', dataset_title='set', data_title=name,
        data_type='video', is_shadow_data=False)
    size = dict(width=SIDE, height=SIDE)
    fields = dict.fromkeys(field.name for field in dataclasses.fields(LabelRowMetadata))
    fields |= known | size | dict(label_status=LabelStatus.LABELLED, number_of_frames=100, spaces={})
    row = LabelRowV2(LabelRowMetadata(**fields), None, SimpleNamespace(structure=ontology))
    unit = size | dict(
        data_hash=name, data_title=name, data_type='video/mp4', data_link='', data_sequence=0, data_fps=25.0,
        data_duration=4.0, labels={})
    time = '2026-01-01 00:00:00'
    row.from_labels_dict(known | dict(
        created_at=time, last_edited_at=time, annotation_task_status='QUEUED', label_status='LABELLED',
        object_answers={}, object_actions={}, classification_answers={}, data_units={name: unit}))
    return row


def export(*rows):
    return CocoExporter([row.to_encord_dict() for row in rows], ontology).export()


def track(name, frames):
    """A video with one car, which is occluded in the second half of the labeled frames."""
    row, half = video(name), len(frames) // 2
    instance = car.create_instance()
    instance.set_for_frames(SQUARE, list(frames))
    row.add_object_instance(instance)
    for answer, part in (('no', frames[:half]), ('yes', frames[half:])):
        instance.set_answer(answers[answer], occluded, frames=list(part))
    row_says = [instance.get_answer(occluded, filter_frame=frame)[0].answer.label for frame in frames]
    assert row_says == ['no'] * half + ['yes'] * (len(frames) - half)
    return row


cases = {
    'frames 0 to 9': [range(10)],
    'frames 4 to 13': [range(4, 14)],
    'every tenth frame': [range(0, 100, 10)],
    'two videos, frames 0 to 9': [range(10), range(10)],
}
seen = {}
for name, videos in cases.items():
    content = export(*(track(f'video{number}', frames) for number, frames in enumerate(videos)))
    values = [annotation['attributes']['classifications']['occluded'] for annotation in content['annotations']]
    seen[name] = ' '.join({'yes': 'y', 'no': 'n', None: '-'}[value] for value in values)
    print(f'{name}, occluded in the second half; in COCO: {seen[name]}')
for angle in (0, 90):
    row, instance = video('bars'), bar.create_instance()
    instance.set_for_frames(
        RotatableBoundingBoxCoordinates(height=0.1, width=0.6, top_left_x=0.2, top_left_y=0.45, theta=angle), 0)
    row.add_object_instance(instance)
    (annotation,) = export(row)['annotations']
    turned = [20, 45, 80, 45, 80, 55, 20, 55] if angle == 0 else [45, 20, 55, 20, 55, 80, 45, 80]
    polygons = [api.frPyObjects(polygon, SIDE, SIDE) for polygon in ([turned], annotation['segmentation'])]
    seen[angle] = round(float(api.iou(*polygons, [0])[0, 0]), 3)
    print(f'a bar turned by {angle} degrees: IoU {seen[angle]} with its segmentation in COCO')
if seen != {
    'frames 0 to 9': 'n n n n n y y y y y',
    'frames 4 to 13': '- - - - n n n n n y',
    'every tenth frame': 'n - - - - - - - - -',
    'two videos, frames 0 to 9': 'n n n n n y y y y y - - - - - - - - - -',
    0: 1.0,
    90: 0.091,
}:
    sys.exit('changed: attributes are those of their frames, or boxes are turned')
PYTHON
