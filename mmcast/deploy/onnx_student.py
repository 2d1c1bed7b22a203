"""Runs an exported ONNX file with onnxruntime, numpy and OpenCV; needs neither torch nor mmdet."""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from mmcast.deploy.inputs import check_batch, prepare_image
from mmcast.deploy.instances import Instances
from mmcast.deploy.onnx_files import OUTPUTS, check_onnx_file, read_metadata
from mmcast.errors import CASTError, reason_of
from mmcast.images import parse_value_range
from mmcast.masks.cropped import CroppedMasks
from mmcast.masks.tiling import Views, Windows
from mmcast.optional import require

_ON_CPU = {'CPUExecutionProvider', 'AzureExecutionProvider'}  # the latter calls a server


class OnnxStudent:
    """A student in onnxruntime.

    Args:
        path: a file of ``mmcast onnx``.
        threads: of one operator; default onnxruntime's choice, one per core.
        providers: onnxruntime's execution providers, by default those installed, a GPU before the
            CPU.

    Attributes:
        classes: names by label.
        score_threshold: the default.
        value_range: what is black and white in images of more than 8 bits; None refuses them.
        metadata: everything that the file says about itself: ``classes``, ``mean``, ``std``,
            ``score_threshold``, ``resize``, ``value_range``, ``precision``, ``mmcast``,
            ``checkpoint_sha256`` and others.

    Raises:
        CASTError: onnxruntime is not installed, or the file is missing, damaged or not one of ours.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        threads: int | None = None,
        providers: Sequence[str | tuple[str, dict]] | None = None,
    ) -> None:
        runtime = require('onnxruntime')
        check_onnx_file(path)
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors; fp16 files warn of every cast that the CPU needs
        options.intra_op_num_threads = threads or 0
        # A pattern takes one more block of memory, as large as what the first run has left in the
        # arena, for each new size of images, and saves no time on a CPU (1.32).
        options.enable_mem_pattern = False
        try:
            self.session = runtime.InferenceSession(
                os.fspath(path),
                options,
                providers=list(providers or runtime.get_available_providers()),
            )
            self.metadata = read_metadata(self.session, path)
        except CASTError:
            raise
        except Exception as error:  # onnxruntime has a dozen types of its own
            raise CASTError(
                f'{path} cannot be loaded by onnxruntime ({str(error).splitlines()[0]}); it may be '
                'cut short, export it again'
            ) from error
        self.path = path
        self.classes: list[str] = self.metadata['classes']
        self.score_threshold: float = self.metadata['score_threshold']
        self.value_range = parse_value_range(self.metadata.get('value_range'))

    def __call__(self, image: np.ndarray, score_threshold: float | None = None) -> Instances:
        """Instances of an RGB image, (H, W, 3) of uint8 or what
        :func:`~mmcast.deploy.inputs.prepare_image` makes of others; masks of its size.

        The image is resized as in the test pipeline that the student was exported with, the masks
        are resized back.

        Raises:
            CASTError: it is no image, or too thin to be resized.
        """
        image = prepare_image(image, self.value_range)
        size = image.shape[:2]
        fitted = self._fitted(image)
        found = self.run(fitted[None], score_threshold)[0]
        if fitted.shape == image.shape:
            return found
        masks = found.cropped.resize(size)
        whole = masks if self.metadata.get('windows') else masks.to_array()
        return Instances(masks.boxes(), whole, found.scores, found.labels)

    def run(self, images: np.ndarray, score_threshold: float | None = None) -> list[Instances]:
        """Instances of every image of a batch; nothing is resized.

        Args:
            images: (B, H, W, 3) of uint8, RGB.
            score_threshold: Instances with a lower score are left out; default is the file's.

        Raises:
            CASTError: ``images`` are something else.
        """
        images = check_batch(images)
        threshold = self.score_threshold if score_threshold is None else score_threshold
        if self.metadata.get('windows'):
            return [self._run_in_windows(image, threshold) for image in images]
        return self._run_whole(images, threshold)

    def _run_in_windows(self, image: np.ndarray, threshold: float) -> Instances:
        """Instances of one image, as ``test_cfg.windows`` of the student has them."""
        windows = Windows(**self.metadata['windows'])
        height, width = image.shape[:2]
        canvas = self._padded(image)
        size = canvas.shape[:2]
        places = windows.places(size)
        exact = self.metadata.get('precision') != 'fp16'  # half numbers count to 2048
        parts: list[Instances] = []
        for crops in self._crops(canvas, windows):
            for part in self._run_whole(crops, windows.score_thr):
                parts.append(_on_canvas(part, places[len(parts)], size, exact))
        scores, labels = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ('scores', 'labels')
        )
        corners = np.repeat(places, [len(part) for part in parts], axis=0)
        masks = CroppedMasks.joined([part.cropped for part in parts])
        views = Views(masks, scores, labels, corners, windows.size)
        groups = [group for group in views.groups() if scores[group[0]] > threshold]
        best = [group[0] for group in groups]
        masks = views.paste(groups).cut_to((height, width))
        found = Instances(masks.boxes(), masks, scores[best], labels[best])
        return found[masks.any()].best_first()

    def batches(self, image: np.ndarray) -> Iterator[np.ndarray]:
        """What the graph itself is given for an image: (B, H, W, 3) of uint8, the image as it is
        resized, or its windows, few at a time.

        Args:
            image: as of a call.

        Raises:
            CASTError: it is no image, or too thin to be resized.
        """
        image = self._fitted(prepare_image(image, self.value_range))
        if self.metadata.get('windows'):
            yield from self._crops(self._padded(image), Windows(**self.metadata['windows']))
        else:
            yield image[None]

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        """An image as the test pipeline resizes it."""
        size = image.shape[:2]
        inner = scaled_size(size, self.metadata['resize'])
        if not all(inner):
            raise CASTError(
                f'the image is {size[1]}x{size[0]}, which leaves nothing of its short side once it '
                f'is fitted into {self.metadata["resize"]}; cut it into parts'
            )
        if inner == size:
            return image
        return require('cv2').resize(image, inner[::-1], interpolation=require('cv2').INTER_LINEAR)

    def _padded(self, image: np.ndarray) -> np.ndarray:
        """An image that windows are cut out of."""
        divisor = self.metadata['pad_size_divisor']
        height, width = image.shape[:2]
        size = tuple(-(-side // divisor) * divisor for side in (height, width))
        if size == (height, width):
            return image
        # Torch pads the normalised image with zeros before it is divided: grey of the mean, but for
        # rounding.
        mean = self.metadata['mean'] or (0, 0, 0)
        canvas = np.empty((*size, 3), np.uint8)
        canvas[:] = np.rint(mean if self.metadata['bgr_to_rgb'] else mean[::-1])
        canvas[:height, :width] = image
        return canvas

    def _crops(self, canvas: np.ndarray, windows: Windows) -> Iterator[np.ndarray]:
        """The windows of an image; all at once, a large one would need all memory."""
        on_cpu = set(self.session.get_providers()) <= _ON_CPU
        for batch in windows.batches(canvas.shape[:2], on_cpu):
            yield np.stack([canvas[y : y + windows.size, x : x + windows.size] for y, x in batch])

    def _run_whole(self, images: np.ndarray, threshold: float) -> list[Instances]:
        """Instances of every image of a batch, each predicted as a whole."""
        feed = dict(images=images, score_threshold=np.array(threshold, np.float32))
        try:
            *found, owners = self.session.run(list(OUTPUTS), feed)
            every = Instances(*found)
            order = np.argsort(-every.scores, kind='stable')
            # Every copy of the masks is the largest thing here: files of this version have the best
            # first.
            if len(images) == 1 and np.array_equal(order, np.arange(len(order))):
                return [every]
            return [every[order[owners[order] == index]] for index in range(len(images))]
        except Exception as error:  # of memory, of a GPU, or of a graph that is not ours
            size = 'x'.join(map(str, images.shape[2:0:-1]))
            raise CASTError(
                f'{self.path} fails on images of {size} ({reason_of(error)})'
            ) from error


def _on_canvas(
    found: Instances, corner: tuple[int, int], size: tuple[int, int], exact: bool
) -> Instances:
    """A window's instances that have a pixel, on the image that the window is cut out of; holds
    nothing of the window's arrays of masks.

    Args:
        found: of the window.
        corner: its top row and left column.
        size: height and width of the image.
        exact: whether boxes are tight to the pixel.
    """
    cropped = CroppedMasks.in_boxes(found.masks, found.boxes) if exact else found.cropped
    masks = cropped.copy_to(corner, size)
    return Instances(found.boxes, masks, found.scores, found.labels)[masks.any()]


def scaled_size(size: tuple[int, int], scale: Sequence[int] | None) -> tuple[int, int]:
    """Height and width of an image fitted into ``scale`` (long, short side), aspect ratio kept."""
    if scale is None:
        return size
    factor = min(max(scale) / max(size), min(scale) / min(size))
    height, width = (int(side * factor + 0.5) for side in size)
    return height, width
