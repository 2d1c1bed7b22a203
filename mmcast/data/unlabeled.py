"""Images whose labels nobody made, or nobody may see."""

import logging
from pathlib import Path

from mmdet.datasets import CocoDataset
from mmengine.logging import print_log

from mmcast.coco.reading import read_image_list
from mmcast.data.loading import LoadImage
from mmcast.errors import CASTError
from mmcast.images import IMAGE_SUFFIXES, list_folder, read_sizes
from mmcast.registry import DATASETS


@DATASETS.register_module()
class UnlabeledDataset(CocoDataset):
    """Images without instances, each with `source` set to 'unlabeled', for the online teacher to
    label.

    With `ann_file` these are the images of a COCO JSON; annotations in it are ignored, so that no
    label can leak. Without, they are all image files under `data_prefix['img']`, at any depth, but
    for those that cannot be read, which a log line names. No image is dropped for being empty.

    Raises:
        CASTError: if the file is not a valid COCO file or lists no image, or the folder is missing
            or has no image that can be read.
    """

    def load_data_list(self) -> list[dict]:
        if not self.ann_file:
            return self._list_folder(Path(self.data_prefix['img']))
        # Only what is loaded one by one, in tests, may be without a size.
        folder = None if self.test_mode else self.data_prefix['img']
        images = read_image_list(self.ann_file, folder)['images']
        if not images:
            raise CASTError(
                f'{self.ann_file} lists no image: make a split that leaves some unlabeled'
            )
        return self._describe(images)

    def parse_data_info(self, raw_data_info: dict) -> dict:
        data_info = super().parse_data_info(dict(raw_data_info, raw_ann_info=[]))
        data_info['source'] = 'unlabeled'
        return data_info

    def filter_data(self) -> list[dict]:
        """Keep every image that `filter_cfg.min_size` (pixels, the shorter side) admits."""
        min_size = 0 if self.test_mode else (self.filter_cfg or {}).get('min_size', 0)
        return [info for info in self.data_list if min(info['width'], info['height']) >= min_size]

    def _list_folder(self, folder: Path) -> list[dict]:
        found = list_folder(folder)
        loading = (step for step in self.pipeline.transforms if isinstance(step, LoadImage))
        value_range = next((step.value_range for step in loading), None)
        sizes, unreadable = read_sizes(found.images, value_range)
        for line in found.remarks():
            print_log(line, logger='current')
        if unreadable:
            print_log(
                '\n  '.join([f'{len(unreadable)} images left out:', *unreadable.values()]),
                logger='current',
                level=logging.WARNING,
            )
        if not sizes:
            raise CASTError(
                f'{folder} is missing or holds no image that can be read '
                f"({' '.join(IMAGE_SUFFIXES)}): check data_root and data_prefix['img']"
            )
        return self._describe(
            [
                dict(
                    id=number,
                    file_name=path.relative_to(folder).as_posix(),
                    height=height,
                    width=width,
                )
                for number, (path, (height, width)) in enumerate(sizes.items())
            ]
        )

    def _describe(self, images: list[dict]) -> list[dict]:
        """MMEngine's entries of COCO's images."""
        self.cat_ids, self.cat_img_map = [], {}
        unknown = dict(height=0, width=0)
        return [
            self.parse_data_info(dict(raw_img_info={**unknown, **image, 'img_id': image['id']}))
            for image in images
        ]
