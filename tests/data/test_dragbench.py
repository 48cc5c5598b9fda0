"""DragBench's folder is read in a fixed order, checked against the published set, and never trusted."""

import os
import pickle
import random
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from dragstudy.data.dragbench import META, DragBench, published_ids, read_meta
from dragstudy.data.samples import frozen_manifest

from ..tiny import picture

POINTS = [[10, 20], [14, 22], [5, 5], [5, 5]]


def mask(width: int = 48, height: int = 32) -> np.ndarray:
    drawn = np.zeros((height, width), np.uint8)
    drawn[2:30, 2:40] = 1
    return drawn


def meta(**changes: object) -> dict:
    return {"prompt": "a picture", "points": POINTS, "mask": mask()} | changes


@pytest.fixture
def write(tmp_path: Path):
    """`write(content)`: a file with these bytes, or with this object pickled."""

    def written(content: object, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
        raw = content if isinstance(content, bytes) else pickle.dumps(content, protocol)
        path = tmp_path / META
        path.write_bytes(raw)
        return path

    return written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five samples in two categories, made in no order, under the release's folder."""
    names = ["land_scape/B_1", "animals/Z_9", "land_scape/A_2", "animals/a_1", "animals/A_1"]
    for k, name in enumerate(names):
        made = tmp_path / "drag_bench_data" / name
        made.mkdir(parents=True)
        picture(48, 32, k).save(made / "original_image.png")
        (made / META).write_bytes(pickle.dumps(meta(prompt=made.name)))
    return tmp_path


class Runs:
    """An object whose pickle calls something as it is read."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self):
        return self.call[0], tuple(self.call[1:])


def test_a_sample_has_the_drags_the_mask_and_the_prompt_and_no_true_edit(folder):
    sample = DragBench.open(folder).sample("land_scape-A_2")
    assert sample.drags.handle_points.tolist() == [[10, 20], [5, 5]]
    assert sample.drags.target_points.tolist() == [[14, 22], [5, 5]]
    assert np.array_equal(sample.drags.mask, mask()) and sample.drags.image_size == (48, 32)
    assert sample.image.tobytes() == picture(48, 32, 2).tobytes()
    assert sample.prompt == "A_2" and sample.target is None and sample.landmarks is None


def test_the_order_is_that_of_the_names_whatever_the_file_system_says(folder, monkeypatch):
    expected = ("animals-A_1", "animals-Z_9", "animals-a_1", "land_scape-A_2", "land_scape-B_1")
    assert DragBench.open(folder).ids == DragBench.open(folder / "drag_bench_data").ids == expected
    for name in ("listdir", "scandir"):
        real, chance = getattr(os, name), random.Random(0)

        def shuffled(*args, real=real, chance=chance):
            found = list(real(*args))
            chance.shuffle(found)
            return found if real.__name__ == "listdir" else Shuffled(found)

        monkeypatch.setattr(os, name, shuffled)
    assert DragBench.open(folder).ids == expected


class Shuffled(list):
    """What `os.scandir` gives: a context that is gone through."""

    def __enter__(self):
        return iter(self)

    def __exit__(self, *_):
        pass


def test_drags_of_length_zero_are_kept_and_told_of(folder):
    found = DragBench.open(folder)
    assert found.zero_length == [(id, 1) for id in found.ids]
    assert found.sample(found.ids[0]).drags.anchors.tolist() == [False, True]
    summary = found.summary()
    assert (summary["images"], summary["pairs"], len(summary["zero_length"])) == (5, 10, 5)
    assert summary["categories"]["animals"] == {"images": 3, "pairs": 6}


def test_the_manifest_is_the_published_set():
    manifest = frozen_manifest("dragbench")
    assert len(set(published_ids())) == manifest["images"] == 205
    assert list(published_ids()) == sorted(published_ids())
    assert sum(category["pairs"] for category in manifest["categories"].values()) == manifest["pairs"] == 349
    counts = {name: len(category["folders"]) for name, category in manifest["categories"].items()}
    assert (counts["art_work"], counts["human_head"], counts["land_scape"]) == (35, 10, 22)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """All 205 names with as many drags as published, two of them of length zero."""
    zero = 2
    for category, known in frozen_manifest("dragbench")["categories"].items():
        left, folders = known["pairs"], known["folders"]
        for k, name in enumerate(folders):
            count = left // (len(folders) - k)
            left -= count
            points = [[1, 1], [2 if category != "interior_design" or zero <= 0 else 1, 1]] * count
            if category == "interior_design" and zero > 0:
                points, zero = [[1, 1], [1, 1], *[[1, 1], [2, 1]] * (count - 1)], zero - 1
            made = tmp_path / category / name
            made.mkdir(parents=True)
            (made / META).write_bytes(pickle.dumps(meta(points=points)))
    return tmp_path


def test_a_complete_folder_is_checked_against_the_published_counts(whole):
    found = DragBench.open(whole)
    assert found.complete and found.summary()["pairs"] == 349 and len(found.zero_length) == 2
    changed = found.folders[found.ids[0]] / META
    changed.write_bytes(pickle.dumps(meta(points=POINTS * 3)))
    with pytest.raises(ValueError, match="all 205 images of DragBench, but pairs are 35"):
        DragBench.open(whole)
    changed.unlink()
    assert not DragBench.open(whole).complete


def test_an_empty_folder_and_an_unknown_id_are_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="holds no samples"):
        DragBench.open(tmp_path / "nothing")
    with pytest.raises(ValueError, match="no sample 'animals/A_1'"):
        DragBench.open(folder).sample("animals/A_1")


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_every_form_of_numbers_is_read(write, protocol):
    scalars = [[np.int64(3), np.float32(4.5)], (np.uint8(5), 6)]
    for points in (scalars, np.array([[3, 4.5], [5, 6]])):
        found = read_meta(write(meta(points=points, mask=np.asfortranarray(mask())), protocol))
        assert found.handle_points.tolist() == [[3, 4.5]] and found.target_points.tolist() == [[5, 6]]
        assert np.array_equal(found.mask, mask()) and found.mask.dtype == np.uint8
    big_endian = mask().astype(">i4")
    assert np.array_equal(read_meta(write(meta(mask=big_endian), protocol)).mask, mask())
    assert np.array_equal(read_meta(write(meta(mask=mask() > 0), protocol)).mask, mask())


def test_nothing_in_a_pickle_is_run(write, tmp_path):
    witness = tmp_path / "witness"
    calls = [
        Runs(os.system, f"touch {witness}"),
        Runs(eval, f"open({str(witness)!r}, 'w')"),
        Runs(Path.touch, witness),
        Runs(getattr, "text", "encode"),
        Runs(np.load, str(witness)),
        Runs(np.save, str(witness), np.zeros(3)),
        Runs(np.ones, 3),
    ]
    for call in calls:
        for content in (call, meta(prompt=call), meta(points=[call]), meta(extra=call), {call.call[0]: 1}):
            with pytest.raises(ValueError, match="cannot be used as a sample of DragBench: it asks for"):
                read_meta(write(content))
    assert not witness.exists()


HOSTILE = {
    "an array of objects": pickle.dumps(meta(mask=np.array([[1, 0], [None, 1]], dtype=object))),
    "an array of records": pickle.dumps(meta(mask=np.zeros((2, 2), [("a", "u1")]))),
    "an array of strings": pickle.dumps(meta(mask=np.array([["a"]]))),
    "bytes that do not fill the shape": pickle.dumps(meta()).replace(b"K K0\x86", b"K\xffK\xff\x86"),
    "flags that call numbers objects": pickle.dumps(meta()).replace(
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t", b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ft"
    ),
    "a persistent id": b"\x80\x04\x8c\x01xQ.",
    "an extension": b"\x80\x04\x82\x01.",
    "state for a class": b"\x80\x04cnumpy\nndarray\n}b.",
    "slots for a stand-in": b"\x80\x04cnumpy\ndtype\n(\x8c\x02u1\x89\x88tRN}\x8c\x04code\x8c\x01Os\x86b.",
    "attributes for a class": b"\x80\x04cnumpy.core.multiarray\nscalar\nN}\x8c\x06numberNs\x86b.",
    "attributes for another": b"\x80\x04cnumpy._core.numeric\n_frombuffer\nN}\x8c\x05arrayNs\x86b.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.tofile.x\x93.",
    "half a file": pickle.dumps(meta())[:200],
    "no pickle": b"\x89PNG\r\n",
    "nothing": b"",
    "a list": pickle.dumps([1, 2]),
    "no mask": pickle.dumps({"prompt": "", "points": POINTS}),
    "a mask of one axis": pickle.dumps(meta(mask=np.ones(4, np.uint8))),
    "a mask of greys": pickle.dumps(meta(mask=mask() * 255)),
    "a handle without target": pickle.dumps(meta(points=POINTS[:3])),
    "no points": pickle.dumps(meta(points=[])),
    "points of three numbers": pickle.dumps(meta(points=[[1, 2, 3]] * 2)),
    "points of words": pickle.dumps(meta(points=[["a", "b"]] * 2)),
    "a number too large": pickle.dumps(meta(points=[[10**400, 1]] * 2)),
    "a prompt in bytes": pickle.dumps(meta(prompt=b"a")),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_sample_is_refused_in_one_sentence(write, case):
    path = write(HOSTILE[case])
    if case in ("flags that call numbers objects", "bytes that do not fill the shape"):
        assert HOSTILE[case] != pickle.dumps(meta())
    if case == "flags that call numbers objects":  # they are not even looked at
        assert np.array_equal(read_meta(path).mask, mask())
        return
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} cannot be used as a sample") as error:
        read_meta(path)
    assert "\n" not in str(error.value)


def test_stand_ins_are_as_before_after_all_this(write):
    """Pickles can set attributes of what they name: the next file is read as if none had been."""
    for content in HOSTILE.values():
        with suppress(ValueError):
            read_meta(write(content))
    for protocol in (4, 5):
        found = read_meta(write(meta(points=[[np.int64(1), 2], [3, 4]]), protocol))
        assert np.array_equal(found.mask, mask()) and found.handle_points.tolist() == [[1, 2]]
