"""Images whose labels a teacher made."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from mmengine.logging import print_log

from mmcast.data.mixing import MixedImages
from mmcast.errors import CASTError
from mmcast.memory import no_cycle_search
from mmcast.pseudo_labels.filters import LabelFilter
from mmcast.pseudo_labels.selection import check_has_images, choose_thresholds, match_classes
from mmcast.pseudo_labels.store import SCORES, read_pseudo_labels
from mmcast.registry import DATASETS


@DATASETS.register_module()
class PseudoLabelDataset(MixedImages):
    """A file of `generate_pseudo_labels`, filtered when read, each image with `source` set to
    'pseudo'.

    Instances carry their scores; labels follow the order of `metainfo['classes']`, matched by name.
    Every image stays, also one that has no label left: that nothing is in it is what the teacher
    says. Masks are RLE, so the pipeline loads them with `LoadAnnotations(with_bbox=True,
    with_mask=True)` (not `poly2mask=False`) or `LoadCompressedAnnotations`. One log line says what
    was kept and what was dropped for which reason. `mixing` mixes images, see `MixedImages`.

    Args:
        score_thr: Labels with a `score` above it are used; a number, or one for each class by name.
        class_score_thr: The same for `class_score`, how sure the teacher is of the class; to
            threshold the two apart, set `score_thr=0`.
        mask_quality_thr: The same for `mask_quality`, how good it thinks the mask is.
        agreement_thr: The same for `agreement`, how well the two components of a foundation teacher
            agree.
        thresholds_from: A threshold on `score` for each class, set from data, where that is above
            `score_thr`: `dict(percentile=60)` leaves out the lowest 60 % of the labels of each
            class, `dict(labeled='labeled.json')` takes as many labels per image as the labeled
            images have, before overlaps are resolved, `dict(held_out='thresholds.json')` those with
            the best F1 on images with ground truth, of a pipeline's step of kind `thresholds`.
        min_area: Smallest number of pixels of a label, counted after overlaps are resolved.
        min_visible: Smallest fraction of its pixels, 0 to 1, that labels of a higher `score` leave
            to one. A duplicate of an object keeps only a sliver.
        top_k: At most so many labels per image, those of the highest `score`.
        resolve_overlaps: A pixel that several labels claim goes to the one with the highest
            `score`.
        confidence: Weight the pixels of the mask loss with the stored maps of the teacher's
            confidence; the pipeline carries them as `gt_seg_map`.
        pipeline: The transforms of an image, as of any mmdet data set.

    Raises:
        CASTError: If the file is not a pseudo-label file, lacks a score that has a threshold or the
            confidence that is asked for, or its classes or those of a threshold are not the data
            set's.
    """

    def __init__(
        self,
        *args: Any,
        score_thr: float | dict[str, float] = 0.3,
        class_score_thr: float | dict[str, float] | None = None,
        mask_quality_thr: float | dict[str, float] | None = None,
        agreement_thr: float | dict[str, float] | None = None,
        thresholds_from: dict | None = None,
        min_area: int = 0,
        min_visible: float = 0,
        top_k: int | None = None,
        resolve_overlaps: bool = True,
        confidence: bool = False,
        pipeline: Sequence[dict] = (),
        **kwargs: Any,
    ) -> None:
        given = dict(
            score=score_thr,
            class_score=class_score_thr,
            mask_quality=mask_quality_thr,
            agreement=agreement_thr,
        )
        self.thresholds = {
            field: threshold for field, threshold in given.items() if threshold is not None
        }
        self.thresholds_from = thresholds_from
        self.filter_options = dict(
            min_area=min_area,
            min_visible=min_visible,
            top_k=top_k,
            resolve_overlaps=resolve_overlaps,
        )
        self.confidence = confidence
        if confidence:  # before anything changes the image's size
            loading = [
                place for place, step in enumerate(pipeline, 1) if 'Load' in str(step['type'])
            ]
            pipeline = [*pipeline]
            pipeline.insert(max(loading, default=0), dict(type='mmcast.LoadConfidenceMap'))
        super().__init__(*args, pipeline=pipeline, **kwargs)

    @no_cycle_search()
    def load_data_list(self) -> list[dict]:
        # Not through pycocotools, as the parent does: that reads the file a second time and keeps
        # it.
        content = read_pseudo_labels(self.ann_file)
        check_has_images(content, self.ann_file)
        fix = 'set metainfo.classes of this data set to the classes of its teacher'
        ids = match_classes(content, self.metainfo['classes'], self.ann_file, fix)
        self.cat_ids = list(ids.values())
        self.cat2label = {category: label for label, category in enumerate(self.cat_ids)}
        if self.confidence and not content['info'].get('confidence'):
            raise CASTError(
                f'{self.ann_file} has no confidence maps: make it with confidence=True (a key of '
                'the pseudo_label step; mmcast label --confidence), or leave confidence '
                'out here'
            )
        thresholds, said = choose_thresholds(
            content, ids, self.thresholds, self.thresholds_from, self.ann_file
        )
        if said:
            print_log(said, logger='current')
        choose = LabelFilter(thresholds, **self.filter_options)
        annotations = defaultdict(list)
        for annotation in content.pop('annotations'):
            annotations[annotation['image_id']].append(annotation)
        data_list, self.cat_img_map = [], {category: [] for category in self.cat_ids}
        for image in content['images']:
            chosen = choose(annotations.pop(image['id'], []))
            data_list.append(
                self.parse_data_info(
                    dict(raw_img_info=dict(image, img_id=image['id']), raw_ann_info=chosen)
                )
            )
            for category in {annotation['category_id'] for annotation in chosen}:
                self.cat_img_map[category].append(image['id'])
        empty = sum(not info['instances'] for info in data_list)
        names = dict(zip(self.cat_ids, self.metainfo['classes']))
        print_log(
            f'{self.ann_file}: {choose.summary(names)}; {empty} of {len(data_list)} images are '
            'empty',
            logger='current',
        )
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict:
        data_info = super().parse_data_info(raw_data_info)
        for instance, annotation in zip(
            data_info['instances'], raw_data_info['raw_ann_info'], strict=True
        ):
            instance.update({field: annotation[field] for field in SCORES if field in annotation})
        data_info['source'] = 'pseudo'
        if self.confidence:
            data_info['confidence'] = raw_data_info['raw_img_info']['confidence']
        return data_info

    def filter_data(self) -> list[dict]:
        """Keep every image; an empty one is information."""
        return self.data_list
