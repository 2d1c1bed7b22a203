#!/usr/bin/env bash
# geococo 0.7.0 (GIS labels to COCO): masks do not lie on the objects of the pictures where the window is not a square.
# `geococo add image.tif labels.shp dataset.json images/ WIDTH HEIGHT`, and `append_dataset`, cut the raster in windows
# of one size. The array that rasterio gives has rows first; geococo cuts it to (bands, width, height), pads what is
# missing with black, and writes it as a JPEG of width x height, to which rasterio resamples it. A window of 192 x 128
# loses its right third and shows the rest squeezed, while its masks are those of the whole window. An object of 20 x 20
# pixels has IoU 0.1 with its mask, at 256 x 128 it is 0; at 128 x 128 it is 1. All sizes in the file agree.
# And black is "no data", whether the raster says so or not: masks are read off the JPEG, without its black pixels. Of a
# black object of 400 pixels on grey 56 are left, those that JPEG made less black; deep shadows become holes. Its box
# stays as it was. No message is given.
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check geococo==0.7.0 rasterio==1.4.4 geopandas==1.2.0 \
    pandera==0.35.0 pandas==3.1.1 pycocotools==2.0.11 numpy==2.4.6 opencv-python-headless==5.0.0.93
cd "$folder"
export DISABLE_PANDERA_IMPORT_WARNING=True TQDM_DISABLE=1
cat > convert.py <<'PYTHON'
import sys
from pathlib import Path

import geopandas
import numpy as np
import rasterio
from geococo import append_dataset, create_dataset
from pycocotools import mask as api
from rasterio.transform import from_origin
from shapely.geometry import box

HEIGHT, WIDTH, SIDE, PLACE = 300, 400, 20, 'EPSG:32631'
X, Y = 500_000, 5_000_000  # of the raster's corner; a pixel is a metre


def convert(name, window, left, top, pixel, ground):
    """Pixels of the object in its picture, of its mask, and the IoU of both."""
    image = np.full((3, HEIGHT, WIDTH), ground, np.uint8)
    image[:, top : top + SIDE, left : left + SIDE] = pixel
    profile = dict(driver='GTiff', height=HEIGHT, width=WIDTH, count=3, dtype='uint8', crs=PLACE)
    with rasterio.open(f'{name}.tif', 'w', transform=from_origin(X, Y, 1, 1), **profile) as file:
        file.write(image)
    square = box(X + left, Y - top - SIDE, X + left + SIDE, Y - top)
    labels = geopandas.GeoDataFrame(dict(kind=[1]), geometry=[square], crs=PLACE)
    pictures = Path(name)
    pictures.mkdir()
    with rasterio.open(f'{name}.tif') as file:
        assert file.nodata is None, 'the raster has no value for "no data"'
        data = append_dataset(
            dataset=create_dataset(description=name, contributor=name), images_dir=pictures, src=file, labels=labels,
            window_bounds=[window], id_attribute='kind')
    (picture,), (annotation,) = data.images, data.annotations
    mask = api.decode(dict(annotation.segmentation)).astype(bool)
    assert (picture.width, picture.height) == window == mask.shape[::-1] and annotation.bbox[2:] == [SIDE, SIDE]
    with rasterio.open(picture.file_name) as file:
        grey = file.read(1).astype(int)
    shown = np.abs(grey - pixel) < abs(pixel - ground) / 2
    return int(shown.sum()), int(mask.sum()), round(float((mask & shown).sum() / (mask | shown).sum()), 2)


cases = {
    'bright, 128 x 128': ((128, 128), 200, 60),
    'bright, 192 x 128': ((192, 128), 200, 60),
    'bright, 128 x 192': ((128, 192), 200, 60),
    'bright, 256 x 128': ((256, 128), 200, 60),
    'dark, 128 x 128': ((128, 128), 30, 120),
    'black, 128 x 128': ((128, 128), 0, 120),
}
seen = {}
for name, (window, pixel, ground) in cases.items():
    for left, top in ((50, 40), (200, 100)):
        key = f'{name}, object at ({left}, {top})'
        seen[key] = convert(key, window, left, top, pixel, ground)
        print(f'{key}: {seen[key][0]} pixels in the picture, {seen[key][1]} in the mask, IoU {seen[key][2]}')
squares = [result for key, result in seen.items() if key.startswith(('bright, 128 x 128', 'dark'))]
others = [iou for key, (_, pixels, iou) in seen.items() if '192' in key or '256' in key]
black = [pixels for key, (_, pixels, _) in seen.items() if key.startswith('black')]
assert squares == [(400, 400, 1.0)] * 4, 'square windows are right'
if not (len(others) == 6 and max(others) < 0.2 and len(black) == 2 and max(black) < 100):
    sys.exit('changed: masks lie on their objects')
PYTHON
"$folder/venv/bin/python" -W ignore convert.py 2> errors || { cat errors; exit 1; }
