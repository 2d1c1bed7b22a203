"""The file of a test's predictions that mmdet's tools read."""

import pickle

from mmdet.evaluation import DumpDetResults

from mmcast.files import write_atomically


class PredictionsFile(DumpDetResults):
    """mmdet's ``DumpDetResults`` whose file is there whole or not at all.

    The file is a pickled list with a dict for each image of the test set, in its order: ``img_id``,
    ``img_path``, ``ori_shape`` and, in ``pred_instances``, ``bboxes`` (N, 4) as x1, y1, x2, y2 in
    pixels of the image, ``scores`` (N,), ``labels`` (N,) and ``masks``, N times COCO's RLE.

    Args:
        out_file_path: ends in .pkl or .pickle.
    """

    default_prefix = 'predictions'  # of no metric; without one MMEngine warns

    def compute_metrics(self, results: list) -> dict:
        """Writes the predictions of all processes; returns no metric."""
        write_atomically(self.out_file_path, pickle.dumps(results))
        return {}
