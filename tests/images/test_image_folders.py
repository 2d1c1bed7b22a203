"""Which files of a folder are images to use."""

import os
import sys

import pytest
from PIL import Image

from mmcast.errors import CASTError
from mmcast.images import image_files, list_folder, name_problem, read_sizes


def make(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b'x')


def names_of(folder, paths):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_images_are_found_at_any_depth_in_the_order_of_their_paths(tmp_path):
    make(tmp_path, 'b.PNG', 'a/z.tiff', 'a/b/c.webp', 'notes.txt', 'labels.json', 'Thumbs.db')
    (tmp_path / 'folder.png').mkdir()
    assert names_of(tmp_path, image_files(tmp_path)) == ['a/b/c.webp', 'a/z.tiff', 'b.PNG']
    assert image_files(tmp_path / 'nowhere') == []


def test_copies_and_previews_of_systems_are_left_out_and_counted(tmp_path):
    hidden = [
        '.a.png',
        '._b.jpg',
        '.ipynb_checkpoints/b.png',
        '@eaDir/b.jpg/x.jpg',
        '__MACOSX/c.png',
    ]
    make(tmp_path, 'b.png', 'deep/.thumbnails/t.png', *hidden)
    found = list_folder(tmp_path)
    assert names_of(tmp_path, found.images) == ['b.png']
    assert len(found.left_out) == 6
    assert found.remarks()[0].startswith('6 hidden files and copies of programs left out, such as')
    assert list_folder(tmp_path / 'deep/.thumbnails').images  # who names it wants it


def test_links_are_followed_and_each_file_counts_once(tmp_path):
    data, far = tmp_path / 'data', tmp_path / 'far'
    make(data, 'own.png', 'sub/deep.png')
    make(far, 'one.png', 'two/three.png')
    (data / 'far').symlink_to(far)
    (data / 'again').symlink_to(far)
    (data / 'one.png').symlink_to(far / 'one.png')
    (data / 'alias.png').symlink_to(data / 'own.png')
    (data / 'loop').symlink_to(data)
    (data / 'itself').symlink_to('itself')
    (data / 'sub/up').symlink_to(tmp_path)
    (far / 'back').symlink_to(data)
    found = image_files(data)
    assert names_of(data, found) == [
        'again/one.png',
        'again/two/three.png',
        'own.png',
        'sub/deep.png',
    ]
    (data / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
    assert data / 'gone.png' in image_files(data)  # it is named as unreadable later, not lost here


def test_pictures_of_other_formats_are_counted(tmp_path):
    make(tmp_path, 'a.png', 'b.HEIC', 'deep/c.gif', '.hidden.gif', 'notes.txt')
    found = list_folder(tmp_path)
    assert names_of(tmp_path, found.images) == ['a.png'] and not found.left_out
    (line,) = found.remarks()
    assert line.startswith('2 files of formats that are not read (.gif .heic), such as ')


def test_links_into_a_hidden_store_count(tmp_path):
    """git-annex and DVC keep all files there."""
    make(tmp_path, '.store/ab/cd.png')
    (tmp_path / 'photo.png').symlink_to(tmp_path / '.store/ab/cd.png')
    assert names_of(tmp_path, image_files(tmp_path)) == ['photo.png']


@pytest.mark.skipif(sys.platform != 'linux', reason='other systems do not write such names')
def test_names_that_no_library_takes_are_told_at_once(tmp_path):
    make(tmp_path, 'good.png', 'new\nline.png', 'tab\there.png')
    open(os.path.join(os.fsencode(tmp_path), b'caf\xe9.png'), 'wb').close()
    found = list_folder(tmp_path)
    assert names_of(tmp_path, found.images) == ['good.png'] and len(found.unusable) == 3
    with pytest.raises(CASTError, match=r'new\\nline.png. has control .*: rename them') as error:
        image_files(tmp_path)
    for text in (str(error.value), *found.remarks()):
        assert r'caf\udce9.png' in text and text.isprintable()


def test_names_in_any_script_are_fine():
    for name in ('a b.png', 'größe/日本 語.png', "it's.png", 'x' * 200):
        assert not name_problem(name)
    assert name_problem('a\0b.png') and name_problem('a\u2028b.png')


def test_sizes_come_with_all_that_cannot_be_used(tmp_path):
    make(tmp_path, 'text.png')
    Image.new('L', (5, 4)).save(tmp_path / 'fine.png')
    Image.new('I;16', (5, 4)).save(tmp_path / 'deep.png')
    sizes, problems = read_sizes(image_files(tmp_path))
    assert sizes == {tmp_path / 'fine.png': (4, 5)}
    assert 'more than 8 bits' in problems[tmp_path / 'deep.png']
    assert 'cannot be read' in problems[tmp_path / 'text.png'] and len(problems) == 2
    assert len(read_sizes(image_files(tmp_path), 'percentile')[0]) == 2


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root may list all')
def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    make(tmp_path, 'closed/a.png')
    (tmp_path / 'closed').chmod(0)
    try:
        with pytest.raises(CASTError, match='closed cannot be listed .Permission denied.'):
            list_folder(tmp_path)
    finally:
        (tmp_path / 'closed').chmod(0o700)
