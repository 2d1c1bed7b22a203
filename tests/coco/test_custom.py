import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmcast.coco.custom import prepare_custom_data
from mmcast.errors import CASTError


def write_images(folder, names, size=(20, 30)):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)


def coco(names, instances=1):
    """A COCO file of 20x30 images; a category without instances comes first, as labeling tools
    write it.
    """
    square = [[2, 2, 9, 2, 9, 9, 2, 9]]
    annotations = [
        dict(
            id=10 * image + i,
            image_id=image,
            category_id=i % 2 + 1,
            bbox=[2, 2, 7, 7],
            area=49,
            iscrowd=0,
            segmentation=square,
        )
        for image in range(len(names))
        for i in range(instances)
    ]
    return dict(
        images=[dict(id=i, file_name=name, height=20, width=30) for i, name in enumerate(names)],
        annotations=annotations,
        categories=[dict(id=0, name='things'), dict(id=1, name='cell'), dict(id=2, name='dust')],
    )


@pytest.fixture
def root(tmp_path):
    """Ten labeled images, one folder below; four others two folders below."""
    folder = tmp_path / 'data'
    names = [f'{i}.png' for i in range(10)]
    write_images(folder / 'photos', names)
    write_images(folder / 'more', ['u.png', 'deep/v.JPG', 'deep/w.png', 'x.tif'])
    (folder / 'more/notes.txt').write_text('no image')
    (folder / 'labels.json').write_text(json.dumps(coco(names, instances=3)))
    return folder


def run(root, **options):
    return prepare_custom_data(
        **dict(
            dict(
                data_root=root, labeled='labels.json', unlabeled='more', out_dir=root.parent / 'out'
            ),
            **options,
        )
    )


def read(path):
    return json.loads(Path(path).read_text())


def test_a_json_and_a_folder_are_enough(root):
    before = sorted(root.rglob('*'))
    out = run(root)
    assert sorted(root.rglob('*')) == before, 'the data set is left alone'
    labeled, unlabeled, val = (read(out[part]) for part in ('labeled', 'unlabeled', 'val'))
    assert len(labeled['images']) == 8 and len(val['images']) == 2
    ids = [{image['id'] for image in part['images']} for part in (labeled, val)]
    assert not ids[0] & ids[1] and ids[0] | ids[1] == set(range(10))
    for part, of in zip((labeled, val), ids):
        assert {ann['image_id'] for ann in part['annotations']} == of and len(
            part['annotations']
        ) == 3 * len(of)
    assert [image['file_name'] for image in unlabeled['images']] == [
        'deep/v.JPG',
        'deep/w.png',
        'u.png',
        'x.tif',
    ]
    assert {(image['height'], image['width']) for image in unlabeled['images']} == {(20, 30)}
    assert unlabeled['annotations'] == []
    assert out['classes'] == ['cell', 'dust'], 'the category without instances is no class'
    assert out['num_classes'] == 2
    assert out['train_images'] == out['val_images'] == str(root / 'photos')
    assert out['unlabeled_images'] == str(root / 'more')
    assert run(root) == out, 'a second call changes nothing'
    assert read(run(root, seed=1, out_dir=root.parent / 'other')['val']) != val


def test_labeled_images_in_the_same_folder_are_not_unlabeled(root):
    write_images(root / 'photos', ['new.png'])
    unlabeled = read(run(root, unlabeled='photos')['unlabeled'])
    assert [image['file_name'] for image in unlabeled['images']] == ['new.png']


def test_copies_of_labeled_images_are_not_unlabeled(root, capsys):
    write_images(root / 'more', ['deep/7.png'])
    write_images(root / 'more', ['8.png'], (8, 9))
    unlabeled = read(run(root)['unlabeled'])
    assert '1 images of ' in (said := capsys.readouterr().out) and 'deep/7.png, are copies' in said
    names = [image['file_name'] for image in unlabeled['images']]
    assert 'deep/7.png' not in names and '8.png' in names and len(names) == 5


def test_an_unlabeled_json_lends_no_annotation(root):
    names = ['u.png', 'deep/v.JPG']
    (root / 'unlabeled.json').write_text(json.dumps(coco(names)))
    out = run(root, unlabeled='unlabeled.json')
    unlabeled = read(out['unlabeled'])
    assert [image['file_name'] for image in unlabeled['images']] == names
    assert unlabeled['annotations'] == [] and out['unlabeled_images'] == str(root / 'more')


def test_images_of_an_unlabeled_json_are_looked_at(root, capsys):
    (root / 'more/u.png').write_bytes(b'no image')
    listed = coco(['u.png', 'x.tif', 'x.tif', 'deep/v.JPG'])
    for image in listed['images']:
        image.update(width=7)
    (root / 'unlabeled.json').write_text(json.dumps(listed))
    images = read(run(root, unlabeled='unlabeled.json')['unlabeled'])['images']
    assert [(i['file_name'], i['width']) for i in images] == [('x.tif', 30), ('deep/v.JPG', 30)]
    assert '1 unlabeled images' in capsys.readouterr().out
    assert (root.parent / 'out/unreadable_unlabeled.txt').read_text().startswith('u.png\t')


def test_with_validation_images_all_labels_are_trained_on(root):
    write_images(root / 'test/images', ['a.png', 'b.png'])
    (root / 'test/labels.json').write_text(json.dumps(coco(['a.png', 'b.png'])))
    out = run(root, val='test/labels.json')
    assert len(read(out['labeled'])['images']) == 10 and len(read(out['val'])['images']) == 2
    assert out['val_images'] == str(root / 'test/images')


def test_validation_images_are_not_unlabeled(root):
    (root / 'val.json').write_text(json.dumps(coco(['u.png'])))
    unlabeled = read(run(root, val='val.json')['unlabeled'])
    assert 'u.png' not in [image['file_name'] for image in unlabeled['images']]


def test_versions_of_validation_photos_are_not_unlabeled(root, capsys):
    """The student would be trained on what its figures are of; one of a labeled photo stays."""
    versions = [f'{photo}_png.rf.0a1b2c3d4e5f607{n}.png' for photo in 'vw' for n in range(2)]
    write_images(root / 'more', versions)
    write_images(root / 'test', [versions[0]])
    (root / 'val.json').write_text(json.dumps(coco([versions[0]])))
    unlabeled = read(run(root, val='val.json', val_images='test')['unlabeled'])
    names = {image['file_name'] for image in unlabeled['images']}
    assert names >= {*versions[2:]} and names.isdisjoint(versions[:2])
    assert 'are versions of photos for validation: left out' in capsys.readouterr().out


def test_labeled_images_among_those_for_validation_are_said(root, capsys):
    (root / 'val.json').write_text(json.dumps(coco(['3.png', '4.png'])))
    run(root, val='val.json')
    said = capsys.readouterr().out
    assert '2 labeled images, such as ' in said and '3.png, are for validation too' in said
    write_images(root / 'held', ['3.png', 'other.png'])
    (root / 'val.json').write_text(json.dumps(coco(['3.png', 'other.png'])))
    run(root, val='val.json', val_images='held', out_dir=root.parent / 'copies')
    assert '1 labeled images, such as ' in capsys.readouterr().out


def test_a_validation_file_may_lack_a_category(root, capsys):
    listed = coco(['u.png'])
    listed['categories'] = [dict(id=1, name='cell')]
    (root / 'val.json').write_text(json.dumps(listed))
    val = read(run(root, val='val.json')['val'])
    assert val['categories'] == [dict(id=1, name='cell'), dict(id=2, name='dust')]
    assert [annotation['category_id'] for annotation in val['annotations']] == [1]
    assert 'no validation image has an instance of dust' in capsys.readouterr().out


def test_classes_and_images_without_an_instance_are_said(root, capsys):
    (root / 'val.json').write_text(json.dumps(coco(['u.png'])))
    change(root, lambda c: c.update(annotations=c['annotations'][:6]))
    run(root, val='val.json', classes=['things', 'cell', 'dust'])
    said = capsys.readouterr().out.splitlines()
    assert 'no labeled image has an instance of things' in said
    assert 'no validation image has an instance of things, dust' in said
    assert '8 of 10 labeled images have no instance: they are taken to show none' in said


def test_classes_that_few_validation_objects_measure_are_said(root, capsys):
    names = [f'{number}.png' for number in range(10)]
    (root / 'val.json').write_text(json.dumps(coco(names[:9])))
    run(root, val='val.json')
    assert 'few objects of some classes (9 of cell' in capsys.readouterr().out
    (root / 'val.json').write_text(json.dumps(coco(names)))
    run(root, val='val.json', out_dir=root.parent / 'more')
    assert 'of cell' not in capsys.readouterr().out
    run(root, val='val.json', classes=['cell'], out_dir=root.parent / 'one')
    assert 'few objects' not in capsys.readouterr().out


@pytest.mark.parametrize('classes', ['dust', ['dust']])
def test_classes_by_name(root, classes):
    assert run(root, classes=classes)['classes'] == ['dust']


def test_a_class_called_0_is_a_class(root):
    content = json.loads((root / 'labels.json').read_text())
    for category in content['categories']:
        category['name'] = {'dust': '0'}.get(category['name'], category['name'])
    (root / 'labels.json').write_text(json.dumps(content))
    assert run(root, classes=0)['classes'] == ['0']


def test_what_of_the_unlabeled_folder_cannot_be_used_is_listed_at_once(root, capsys):
    more = root / 'more'
    (more / 'u.png').write_text('no picture')
    (more / 'deep/empty.png').write_bytes(b'')
    (more / 'new\nline.png').write_bytes(b'')
    (more / '._w.png').write_bytes(b'resource fork')
    Image.new('I;16', (30, 20)).save(more / 'deep/sixteen.png')
    out = run(root)
    names = [image['file_name'] for image in read(out['unlabeled'])['images']]
    assert names == ['deep/v.JPG', 'deep/w.png', 'x.tif']
    said = capsys.readouterr().out
    assert '3 unlabeled images in' in said and '1 hidden files' in said and r'new\nline.png' in said
    listed = (root.parent / 'out/unreadable_unlabeled.txt').read_text().splitlines()
    for line, word in zip(listed, ('empty.png', 'sixteen.png', 'u.png'), strict=True):
        assert word in line
    assert len(read(run(root, out_dir=root / 'new', value_range='0,9')['unlabeled'])['images']) == 4


def test_labeled_images_of_more_than_8_bits_want_a_range(root):
    Image.new('I;16', (30, 20)).save(root / 'photos/3.png')
    with pytest.raises(CASTError, match=r'3\.png has more than 8 bits: .*variables.value_range'):
        run(root)
    assert run(root, value_range='percentile')['num_classes'] == 2
    with pytest.raises(CASTError, match="value_range is '4095'"):
        run(root, value_range='4095')


def test_a_photo_that_exif_turns_is_listed_upright(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(root / 'more/u.png').save(root / 'more/turned.jpg', exif=exif)
    (image,) = (
        image
        for image in read(run(root)['unlabeled'])['images']
        if image['file_name'] == 'turned.jpg'
    )
    assert (image['height'], image['width']) == (30, 20)


def change(root, edit):
    labels = json.loads((root / 'labels.json').read_text())
    edit(labels)
    (root / 'labels.json').write_text(json.dumps(labels))


@pytest.mark.parametrize(
    'damage, message',
    [
        (
            lambda root: change(root, lambda c: c.update(annotations=[])),
            r'labels.json has no annotation',
        ),
        (
            lambda root: change(root, lambda c: c['annotations'][4].pop('segmentation')),
            r'without a mask \(boxes alone\): 1, such as annotation 11 of image 1',
        ),
        (
            lambda root: change(root, lambda c: c['images'][0].update(file_name='gone.png')),
            r'image gone.png is not in .*variables.labeled_images',
        ),
        (
            lambda root: change(root, lambda c: c['images'][0].update(file_name='photos\\0.png')),
            r'is not in .*: write its file names with / instead',
        ),
        (
            lambda root: (root / 'photos/7.png').unlink(),
            r'1 of its 10 images are not there, such as .*photos/7.png',
        ),
        (
            lambda root: write_images(root / 'copy', [f'{i}.png' for i in range(10)]),
            r'are in .*copy and, by name, in .*photos.*variables.labeled_images',
        ),
        (
            lambda root: (root / 'photos/3.png').write_bytes(b'no image'),
            r'image .*photos/3.png cannot be read',
        ),
        (
            lambda root: write_images(root / 'photos', ['3.png', '4.png'], (30, 20)),
            r'2 images of .*labels.json do not fit it; .*3.png is 20x30, .*30x20: .*by 90 degrees',
        ),
        (
            lambda root: change(
                root,
                lambda c: (
                    [c['images'].pop() for _ in range(9)]
                    + [c.update(annotations=c['annotations'][:3])]
                ),
            ),
            r'has one image with instances, .*variables.val',
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(root, damage, message):
    damage(root)
    with pytest.raises(CASTError, match=message) as error:
        run(root)
    assert '\n' not in str(error.value) and not (root.parent / 'out').exists()


@pytest.mark.parametrize(
    'option, message',
    [
        (dict(data_root='nowhere'), r'nowhere not found.*variables.data_root=PATH'),
        (dict(labeled='nothing.json'), r'nothing.json not found.*variables.labeled=PATH'),
        (dict(unlabeled='nothing'), r'nothing not found.*variables.unlabeled=PATH'),
        (dict(val='nothing.json'), r'nothing.json not found.*variables.val=PATH'),
        (
            dict(classes=['cell', 'car']),
            r'categories things, cell, dust; variables.classes .* not cell, car',
        ),
        (dict(unlabeled='photos'), r'photos has no usable image that is not labeled already'),
    ],
)
def test_a_wrong_setting_is_named(root, option, message):
    with pytest.raises(CASTError, match=message):
        run(root, **option)


def roboflow(root: Path) -> None:
    """As Roboflow exports: images beside their JSON, three versions of each photo, the same names
    in both folders.
    """
    pairs = [f'{photo}_jpg.rf.{photo}{version}' for photo in 'abcd' for version in '012']
    names = [f'{pair}abcdef0123.jpg' for pair in pairs]
    for part, those in (('train', names[:9]), ('valid', names[9:] + names[:1])):
        write_images(root / part, those)
        (root / part / '_annotations.coco.json').write_text(json.dumps(coco(those)))


def test_images_beside_their_json_are_found_and_versions_of_one_photo_are_said(root, capsys):
    roboflow(root)
    train, valid = 'train/_annotations.coco.json', 'valid/_annotations.coco.json'
    out = run(root, labeled=train, val=valid)
    assert out['train_images'] == str(root / 'train') and out['val_images'] == str(root / 'valid')
    assert (
        '3 labeled images, such as a_jpg.rf.a0abcdef0123.jpg, are versions of photos in '
        f'{valid}: ' in capsys.readouterr().out
    )


@pytest.mark.parametrize('seed', range(5))
def test_versions_of_one_photo_stay_together(root, seed):
    roboflow(root)
    out = run(root, labeled='train/_annotations.coco.json', seed=seed, val_percent=30)
    photos = [
        {image['file_name'][0] for image in read(out[part])['images']}
        for part in ('labeled', 'val')
    ]
    assert not photos[0] & photos[1] and photos[0] | photos[1] == set('abc')
    assert len(read(out['val'])['images']) == 3


def test_folders_of_images_can_be_given(root):
    names = [f'{i}.png' for i in range(10)]
    write_images(root / 'copy', names)
    write_images(root / 'more', ['0.png'])
    (root / 'val.json').write_text(json.dumps(coco(['0.png'])))
    out = run(root, labeled_images='copy', val='val.json', val_images='more')
    assert out['train_images'] == str(root / 'copy') and out['val_images'] == str(root / 'more')
    with pytest.raises(CASTError, match=r'nowhere not found.*variables.labeled_images=PATH'):
        run(root, labeled_images='nowhere')
    with pytest.raises(CASTError, match=r'image 0.png is not in .*deep: set variables.val_images'):
        run(root, labeled_images='copy', val='val.json', val_images='more/deep')


def test_unreadable_unlabeled_images_are_left_out_and_listed(root, capsys):
    for name in ('u.png', 'deep/w.png'):
        (root / 'more' / name).write_bytes(b'no image')
    out = run(root)
    assert [i['file_name'] for i in read(out['unlabeled'])['images']] == ['deep/v.JPG', 'x.tif']
    said = capsys.readouterr().out
    assert '2 unlabeled images' in said and 'left out: deep/w.png, u.png' in said
    listed = root.parent / 'out/unreadable_unlabeled.txt'
    names = [line.split('\t')[0] for line in listed.read_text().splitlines()]
    assert str(listed) in said and names == ['deep/w.png', 'u.png']


def crowd(annotations) -> None:
    for annotation in annotations:
        annotation.update(iscrowd=1)


def test_groups_teach_nothing_unless_they_are_said_to_be_objects(root, capsys):
    change(root, lambda c: crowd(c['annotations']))
    with pytest.raises(CASTError, match=r'30 of 30 annotations have iscrowd 1.*crowd_as_instances'):
        run(root)
    out = run(root, crowd_as_instances='True', out_dir=root.parent / 'objects')
    assert {annotation['iscrowd'] for annotation in read(out['labeled'])['annotations']} == {0}
    assert 'iscrowd' not in capsys.readouterr().out
    with pytest.raises(CASTError, match='crowd_as_instances is True or False, not maybe'):
        run(root, crowd_as_instances='maybe')


def test_the_share_of_groups_is_said(root, capsys):
    change(root, lambda c: crowd(c['annotations'][:21]))
    run(root)
    said = capsys.readouterr().out
    assert '21 of 30 annotations (70%) are groups' in said and 'crowd_as_instances=True' in said


def test_what_is_mended_is_said_and_in_the_copies(root, capsys):
    change(root, lambda c: [c['annotations'][4].pop('area'), c['images'][3].pop('height')])
    before = (root / 'labels.json').read_bytes()
    out = run(root)
    said = capsys.readouterr().out
    assert 'missing or unusable areas: 1, such as annotation 11 of image 1' in said
    assert 'no whole numbers: 1, such as image 3 of 3.png' in said
    copies = [read(out[part]) for part in ('labeled', 'val')]
    areas = [annotation['area'] for part in copies for annotation in part['annotations']]
    assert areas == [49] * 30
    assert all(image['height'] == 20 for part in copies for image in part['images'])
    assert (root / 'labels.json').read_bytes() == before


def test_validation_images_need_an_instance(root):
    (root / 'val.json').write_text(json.dumps(coco(['u.png'], instances=1)))
    with pytest.raises(CASTError, match=r'val.json has no instance of dust'):
        run(root, val='val.json', classes='dust')


@pytest.mark.parametrize('seed', range(5))
def test_both_sides_of_a_split_have_instances(root, seed):
    """Only two of ten images have any."""
    change(root, lambda c: c.update(annotations=c['annotations'][:6]))
    out = run(root, seed=seed)
    labeled, val = (read(out[part]) for part in ('labeled', 'val'))
    assert (len(labeled['images']), len(val['images'])) == (8, 2)
    assert (len(labeled['annotations']), len(val['annotations'])) == (3, 3)
