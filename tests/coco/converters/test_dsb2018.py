import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from folder_content import files_of
from mmdet.datasets import CocoDataset
from PIL import Image
from pycocotools import mask as mask_api
from shared_data import DSB2018

from mmcast.coco.converters.dsb2018 import convert_dsb2018, in_val
from mmcast.coco.folder import prepare_coco_folder
from mmcast.errors import CASTError

REPOSITORY = Path(__file__).parents[3]
# The shared data set, which others have made from the same archive, has them so.
TRAIN_ID = '003cee89357d9fe13516167fd67b609a164651b21934585648c740d2c3d86dc1'
VAL_ID = '00071198d059ba7f5914a526d124d28e6d010c92466da21d4a04cd5413362552'
SMALL = ((20, 30),)


def write_image(root: Path, image_id: str, masks: list[np.ndarray], seed=0, size=(20, 30)) -> Path:
    """An image of the archive: RGBA, grey masks of 0 and 255."""
    folder = root / 'stage1_train' / image_id
    for part in ('images', 'masks'):
        (folder / part).mkdir(parents=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(folder / f'images/{image_id}.png')
    for number, mask in enumerate(masks):
        name = hashlib.sha256(bytes([number])).hexdigest()
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f'masks/{name}.png')
    return folder


def square(top, left, side=4, size=(20, 30)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.fixture
def archive(tmp_path) -> Path:
    root = tmp_path / 'archive'
    write_image(root, TRAIN_ID, [square(0, 0), square(5, 5), square(0, 10)])
    write_image(root, VAL_ID, [square(16, 26)], seed=1)
    return root


def convert(archive: Path, **options) -> dict:
    options = dict(sizes=SMALL, progress=False) | options
    return convert_dsb2018(archive, archive.parent / 'out', **options)


def read(archive: Path, split: str) -> dict:
    return json.loads((archive.parent / f'out/annotations/instances_{split}.json').read_text())


def test_one_annotation_for_each_mask_file_and_an_rgb_image(archive):
    before = files_of(archive)
    assert convert(archive) == dict(
        train=dict(images=1, instances=3),
        val=dict(images=1, instances=1),
        other_sizes=0,
        empty_masks=0,
        overlapping=0,
    )
    coco = read(archive, 'train')
    name = TRAIN_ID[:16] + '.png'
    assert coco['images'] == [dict(id=1, file_name=name, height=20, width=30)]
    assert coco['categories'] == [dict(id=1, name='nucleus')]
    masks = [mask_api.decode(ann['segmentation']).astype(bool) for ann in coco['annotations']]
    files = sorted((archive / 'stage1_train' / TRAIN_ID / 'masks').iterdir())
    for mask, file, ann in zip(masks, files, coco['annotations'], strict=True):
        assert np.array_equal(mask, np.asarray(Image.open(file)) == 255)
        assert (ann['area'], ann['iscrowd'], ann['category_id']) == (16, 0, 1)
    assert read(archive, 'val')['annotations'][0]['bbox'] == [26, 16, 4, 4]
    image = Image.open(archive.parent / 'out/images' / name)
    original = Image.open(archive / f'stage1_train/{TRAIN_ID}/images/{TRAIN_ID}.png')
    assert image.mode == 'RGB'
    assert np.array_equal(np.asarray(image), np.asarray(original)[..., :3])
    assert files_of(archive) == before, 'nothing is written to the archive'


def test_mmdet_loads_it_and_a_pipeline_splits_it(archive):
    convert(archive)
    out = archive.parent / 'out'
    dataset = CocoDataset(
        ann_file=str(out / 'annotations/instances_train.json'),
        metainfo=dict(classes=('nucleus',)),
        pipeline=[],
        data_prefix=dict(img=str(out / 'images')),
    )
    info = dataset.get_data_info(0)
    assert Path(info['img_path']).is_file() and len(info['instances']) == 3
    paths = prepare_coco_folder(out, archive.parent / 'split', percent=100)
    labeled = json.loads(Path(paths['labeled']).read_text())
    assert labeled['images'] == read(archive, 'train')['images']


@pytest.mark.parametrize(
    'image_id, val',
    [
        ('00071198d059ba7f5914a526d124d28e6d010c92466da21d4a04cd5413362552', True),
        ('00ae65c1c6631ae6f2be1a449902976e6eb8483bf6b0740d00530220832c6d3e', True),
        ('0121d6759c5adb290c8e828fc882f37dfaf3663ec885c663859948c154a443ed', True),
        ('003cee89357d9fe13516167fd67b609a164651b21934585648c740d2c3d86dc1', False),
        ('01d44a26f6680c42ba94c9bc6339228579a95d0e2695b149b7cc0c9592b21baf', False),
        ('0a7d30b252359a10fd298b638b90cb9ada3acced4e0c0e5a3692013f432ee4e9', True),
    ],
)
def test_the_split_is_that_of_the_shared_data_set(image_id, val):
    assert in_val(image_id) == val


def test_more_validation_images_keep_the_old_ones():
    ids = [hashlib.sha256(bytes([number])).hexdigest() for number in range(200)]
    shares = [{name for name in ids if in_val(name, percent)} for percent in (10, 25, 60)]
    assert shares[0] < shares[1] < shares[2]
    assert 30 < len(shares[1]) < 70


def test_workers_and_the_folder_itself_give_the_same_files(archive):
    for number in range(10):  # more than one chunk of work
        write_image(archive, f'{number:02}' * 32, [square(number, number)], seed=number)
    convert(archive)
    first = files_of(archive.parent / 'out')
    (archive.parent / 'out').rename(archive.parent / 'first')
    out = archive.parent / 'out'
    convert_dsb2018(archive / 'stage1_train', out, sizes=SMALL, num_workers=2, progress=False)
    assert list(files_of(out).values()) == list(first.values())


def test_what_is_left_out_or_odd_is_counted(archive):
    write_image(archive, 'a' * 64, [square(0, 0), square(0, 0, side=0)])
    write_image(archive, 'b' * 64, [square(0, 0), square(3, 3)])  # one pixel in both
    write_image(archive, 'c' * 64, [np.ones((9, 9), bool)], size=(9, 9))
    counts = convert(archive)
    assert (counts['other_sizes'], counts['empty_masks'], counts['overlapping']) == (1, 1, 1)
    assert convert(archive, sizes=None, force=True)['other_sizes'] == 0
    images = read(archive, 'train')['images'] + read(archive, 'val')['images']
    assert 'c' * 16 + '.png' in {image['file_name'] for image in images}


def test_what_a_mac_leaves_in_an_archive_is_no_image(archive):
    (archive / 'stage1_train/__MACOSX/images').mkdir(parents=True)
    (archive / 'stage1_train/.DS_Store').write_text('x')
    assert convert(archive)['train']['images'] == 1


def masks_of(folder: Path) -> list[Path]:
    return sorted((folder / 'masks').iterdir())


def image_of(folder: Path) -> Path:
    return folder / 'images' / f'{folder.name}.png'


def no_masks(folder):
    for path in masks_of(folder):
        path.unlink()
    return folder / 'masks', 'unpack'


def no_masks_folder(folder):
    no_masks(folder)
    (folder / 'masks').rmdir()
    return folder / 'masks', 'unpack'


def no_image(folder):
    image_of(folder).unlink()
    return image_of(folder), 'unpack'


def mask_of_another_size(folder):
    Image.new('L', (8, 8), 255).save(masks_of(folder)[1])
    return masks_of(folder)[1], 'same download'


def mask_truncated(folder):
    path = masks_of(folder)[0]
    path.write_bytes(path.read_bytes()[:40])
    return path, 'unpack'


def mask_of_many_nuclei(folder):
    path = masks_of(folder)[0]
    Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30) % 5).save(path)
    return path, 'binary mask'


def mask_in_colour(folder):
    Image.new('RGB', (30, 20)).save(masks_of(folder)[0])
    return masks_of(folder)[0], 'binary mask'


def mask_without_background(folder):
    Image.fromarray((square(0, 0) * 155 + 100).astype(np.uint8)).save(masks_of(folder)[0])
    return masks_of(folder)[0], 'binary mask'


def image_as_text(folder):
    image_of(folder).write_text('not a picture')
    return image_of(folder), 'cannot be read'


def image_truncated(folder):
    image_of(folder).write_bytes(image_of(folder).read_bytes()[:-20])
    return image_of(folder), 'unpack'


def image_of_16_bit(folder):
    Image.fromarray(np.zeros((20, 30), np.uint16)).save(image_of(folder))
    return image_of(folder), '8 bit'


@pytest.mark.parametrize(
    'damage',
    [
        no_masks,
        no_masks_folder,
        no_image,
        mask_of_another_size,
        mask_truncated,
        mask_of_many_nuclei,
        mask_in_colour,
        mask_without_background,
        image_as_text,
        image_truncated,
        image_of_16_bit,
    ],
)
def test_a_damaged_archive_is_named_and_nothing_written(archive, damage):
    culprit, fix = damage(archive / 'stage1_train' / TRAIN_ID)
    with pytest.raises(CASTError) as error:
        convert(archive)
    message = str(error.value)
    assert str(culprit) in message and fix in message and '\n' not in message
    assert not (archive.parent / 'out').exists()


def test_what_is_no_archive_is_named(tmp_path, archive):
    with pytest.raises(CASTError, match='nowhere is missing: unpack stage1_train.zip'):
        convert_dsb2018(tmp_path / 'nowhere', tmp_path / 'out')
    (tmp_path / 'test_set/ID/images').mkdir(parents=True)
    with pytest.raises(CASTError, match='holds no ID/masks: .*the test sets have no masks'):
        convert_dsb2018(tmp_path / 'test_set', tmp_path / 'out')
    with pytest.raises(CASTError, match='no image is 256x256 or 256x320 .*20x30: use --all-sizes'):
        convert_dsb2018(archive, tmp_path / 'out')
    with pytest.raises(CASTError, match='none of its 2 images falls into train'):
        convert(archive, val_percent=99)
    with pytest.raises(CASTError, match='100 % for validation'):
        convert(archive, val_percent=100)
    write_image(archive, VAL_ID[:16] + '0', [square(0, 0)])
    with pytest.raises(CASTError, match=f'two ids begin with {VAL_ID[:16]}.*rename'):
        convert(archive)


@pytest.mark.parametrize('name', ['images/{}.png', 'annotations/instances_val.json'])
def test_existing_files_are_refused_unless_forced(archive, name):
    convert(archive)
    path = archive.parent / 'out' / name.format(VAL_ID[:16])
    content = path.read_bytes()
    convert(archive)  # the same content is no reason to refuse
    path.write_text('{}')
    with pytest.raises(CASTError, match=f'{path.name} exists with different content'):
        convert(archive)
    assert path.read_text() == '{}'
    convert(archive, force=True)
    assert path.read_bytes() == content


def test_command_line(archive):
    out = archive.parent / 'out'
    command = [sys.executable, 'tools/dataset_converters/dsb2018.py', archive, '--out-dir', out]

    def run(*options):
        return subprocess.run(
            [*command, *options], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )

    failed = run()
    assert failed.returncode == 1 and failed.stderr.startswith('error: ')
    assert failed.stderr.count('\n') == 1 and '--all-sizes' in failed.stderr
    write_image(archive, 'b' * 64, [square(0, 0), square(3, 3)])
    done = run('--all-sizes')
    assert done.returncode == 0, done.stderr
    assert 'instances_val.json: 1 images, 1 instances' in done.stdout
    assert '1 images in which nuclei share pixels' in done.stdout
    assert 'empty' not in done.stdout


@pytest.mark.shared_data
def test_the_shared_data_set_there_and_back(tmp_path):
    """Its images and masks in the archive's layout come back as they were, in the same splits."""
    expected = {
        split: json.loads((DSB2018 / f'annotations/instances_{split}.json').read_text())
        for split in ('train', 'val')
    }
    for split, coco in expected.items():
        coco['images'] = coco['images'][:25]  # of 331 and 114
        masks = defaultdict(list)
        for ann in coco['annotations']:
            masks[ann['image_id']].append(ann['segmentation'])
        for image in coco['images']:
            stem = Path(image['file_name']).stem
            # The rest of the id is not in the data set: one that falls into its split.
            image_id = next(
                name
                for name in (f'{stem}{number:048}' for number in range(1000))
                if in_val(name) == (split == 'val')
            )
            folder = tmp_path / 'stage1_train' / image_id
            for part in ('images', 'masks'):
                (folder / part).mkdir(parents=True)
            with Image.open(DSB2018 / 'images' / image['file_name']) as original:
                original.convert('RGBA').save(folder / f'images/{image_id}.png')
            for number, rle in enumerate(masks[image['id']]):
                mask = Image.fromarray(mask_api.decode(rle) * 255)
                mask.save(folder / f'masks/{number:064}.png')
    convert_dsb2018(tmp_path, tmp_path / 'out', progress=False)
    for split, coco in expected.items():
        found = json.loads((tmp_path / f'out/annotations/instances_{split}.json').read_text())
        names = [image['file_name'] for image in coco['images']]
        assert [image['file_name'] for image in found['images']] == names
        kept = {image['id'] for image in coco['images']}
        assert [ann['segmentation'] for ann in found['annotations']] == [
            ann['segmentation'] for ann in coco['annotations'] if ann['image_id'] in kept
        ]
        for name in names:
            pixels = [
                np.asarray(Image.open(root / 'images' / name))
                for root in (DSB2018, tmp_path / 'out')
            ]
            assert np.array_equal(*pixels)
