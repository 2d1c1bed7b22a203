"""Makes the exports in ``review``: what annotation tools give back of our own review tasks.

    python tests/helpers/review_scene.py scene label_studio           # with mmcast: scene/task
    tool/bin/python tests/exports/make_review.py label_studio scene/task

README.md says which versions these are. ``unchanged`` is what comes back if nobody changes
anything. In ``corrected``, of ``a.png`` the first object (a cell) became a nucleus and the second
was removed, ``b.png`` has a new object, and ``c.png`` was not looked at.
"""

import json
import os
import shutil
import sys
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent / 'review'
NEW = (2, 30, 8, 44)  # of the new object: top, left, bottom, right


def version(package: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(package)


def datumaro(task: Path) -> None:
    """CVAT's XML, read and written again, and as COCO; as CVAT does on its server."""
    from datumaro import Dataset

    for name, tool_format in (('cvat', 'cvat'), ('coco', 'coco_instances')):
        data = Dataset.import_from(str(task / 'annotations.xml'), 'cvat')
        folder = HERE / f'datumaro-{version("datumaro")}-{name}'
        data.export(str(folder), tool_format, save_media=False)


def cvat_jobs(task: Path) -> None:
    """The answer of CVAT's server to GET /api/jobs, as its SDK reads it: the job of the first two
    images is completed, that of the last one is not. The server is a stand-in.
    """
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    from cvat_sdk.api_client import ApiClient, Configuration

    def job(number: int, start: int, stop: int, state: str) -> dict:
        return dict(
            url=f'http://localhost/api/jobs/{number}', id=number, task_id=3, dimension='2d',
            mode='annotation', data_chunk_size=72, data_compressed_chunk_type='imageset',
            data_original_chunk_type='imageset', type='annotation', stage='annotation', state=state,
            status='completed' if state == 'completed' else 'annotation', start_frame=start,
            stop_frame=stop, frame_count=stop - start + 1, consensus_replicas=0, project_id=None,
            assignee=None, guide_id=None, organization=None, parent_job_id=None, bug_tracker=None,
            issues=dict(url='http://localhost/api/issues?job_id=1', count=0),
            labels=dict(url='http://localhost/api/labels?job_id=1'),
        )  # fmt: skip

    jobs = [job(11, 0, 1, 'completed'), job(12, 2, 2, 'in progress')]
    answer = json.dumps(dict(count=2, next=None, previous=None, results=jobs)).encode()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header('Content-Type', 'application/json')
            self.end_headers()
            self.wfile.write(answer)

    server = HTTPServer(('localhost', 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with ApiClient(Configuration(host=f'http://localhost:{server.server_port}')) as client:
        found, response = client.jobs_api.list(task_id=3)
    assert [str(each.state) for each in found.results] == ['completed', 'in progress']
    folder = HERE / f'cvat_sdk-{version("cvat-sdk")}'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'jobs.json').write_bytes(response.data)


def label_studio(task: Path) -> None:
    """Through a running server: ``label-studio start --port 8391 --user-token TOKEN``, the task's
    folder served as local files; its address and token are LABEL_STUDIO_URL and _TOKEN.
    """
    address, token = (os.environ[f'LABEL_STUDIO_{name}'] for name in ('URL', 'TOKEN'))

    def ask(method: str, path: str, body: object = None) -> object:
        request = urllib.request.Request(
            address + path,
            method=method,
            headers={'Authorization': f'Token {token}', 'Content-Type': 'application/json'},
            data=None if body is None else json.dumps(body).encode(),
        )
        return json.loads(urllib.request.urlopen(request).read() or 'null')

    folder = HERE / f'label-studio-{version("label-studio")}'
    folder.mkdir(parents=True, exist_ok=True)
    config = (task / 'labeling_config.xml').read_text()
    for name in ('unchanged', 'corrected'):
        project = ask('POST', '/api/projects/', dict(title=name, label_config=config))['id']
        ask(
            'POST', f'/api/projects/{project}/import', json.loads((task / 'tasks.json').read_text())
        )
        found = ask('GET', f'/api/tasks?project={project}&fields=all')['tasks']
        for each in found:
            result = each['predictions'][0]['result']
            if name == 'corrected' and each['data']['image'].endswith('c.png'):
                continue
            if name == 'corrected' and each['data']['image'].endswith('a.png'):
                result[0]['value']['brushlabels'] = ['nucleus']
                del result[1]
            if name == 'corrected' and each['data']['image'].endswith('b.png'):
                result.append(_brush(result[0]))
            ask('POST', f'/api/tasks/{each["id"]}/annotations/', dict(result=result))
        path = f'/api/projects/{project}/export?exportType=JSON&download_all_tasks=true'
        exported = ask('GET', path)
        (folder / f'{name}.json').write_text(json.dumps(exported))


def _brush(other: dict) -> dict:
    """A new object, by the SDK's own encoder."""
    import numpy as np
    from label_studio_sdk.converter.brush import mask2rle

    mask = np.zeros((other['original_height'], other['original_width']), np.uint8)
    mask[NEW[0] : NEW[2], NEW[1] : NEW[3]] = 255
    value = dict(format='rle', rle=mask2rle(mask), brushlabels=['cell'])
    return dict(other, id='new', value=value, origin='manual')


def fiftyone(task: Path) -> None:
    """Through the importer and exporter of COCO, without its database: as they are (polygons), and
    with ``iscrowd`` set, which makes them write run lengths.
    """
    import fiftyone.utils.coco as coco

    for name, crowd in (('polygons', 0), ('masks', 1)):
        folder = HERE / f'fiftyone-{version("fiftyone")}-{name}'
        importer = coco.COCODetectionDatasetImporter(
            dataset_dir=str(task), label_types='segmentations'
        )
        exporter = coco.COCODetectionDatasetExporter(export_dir=str(folder), export_media=False)
        with importer, exporter:
            for path, metadata, labels in importer:
                for each in labels.detections if labels else ():
                    each['iscrowd'] = crowd
                exporter.export_sample(path, labels, metadata=metadata)


def labelme(task: Path) -> None:
    """Its main window, without a screen: opens every image with our JSON, sets the flag reviewed of
    all but ``c.png``, and saves.
    """
    os.environ['QT_QPA_PLATFORM'] = 'offscreen'
    import labelme
    import labelme.app
    from PyQt5 import QtCore, QtWidgets

    application = QtWidgets.QApplication([])
    folder = HERE / f'labelme-{labelme.__version__}'
    folder.mkdir(parents=True, exist_ok=True)
    overrides = {'with_image_data': False, 'auto_save': False}
    for image in sorted((task / 'images').glob('*.png')):
        window = labelme.app.MainWindow(config_overrides=overrides, file_or_dir=str(image))
        for _ in range(50):
            application.processEvents()
        (flag,) = (
            item
            for widget in window.findChildren(QtWidgets.QListWidget)
            for item in widget.findItems('reviewed', QtCore.Qt.MatchExactly)
        )
        flag.setCheckState(QtCore.Qt.Checked if image.name != 'c.png' else QtCore.Qt.Unchecked)
        file = image.with_suffix('.json')  # where people save it
        assert window.save_labels(str(file))
        shutil.copy(file, folder)


if __name__ == '__main__':
    globals()[sys.argv[1]](Path(sys.argv[2]).resolve())
