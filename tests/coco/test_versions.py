import pytest

from mmcast.coco.versions import photo_of, version_of


@pytest.mark.parametrize(
    'name, photo',
    [
        ('IMG_1_jpg.rf.0a1b2c3d4e5f60718293a4b5c6d7e8f9.jpg', 'IMG_1_jpg'),
        ('train/IMG_1_jpg.rf.0a1b2c3d4e5f60718293a4b5c6d7e8f9.jpg', 'IMG_1_jpg'),
        ('a.rf.rf.0a1b2c3d4e5f6071.png', 'a.rf'),
        ('IMG_1.jpg', None),
        ('a.rf.jpg', None),
        ('.rf.0a1b2c3d4e5f6071.jpg', None),
    ],
)
def test_versions_of_a_photo_have_its_name(name, photo):
    assert version_of(name) == photo
    assert photo_of(name) == (photo or name)
    assert photo_of(f'./{name}') == photo_of(name)
