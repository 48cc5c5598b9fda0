"""Short clips of things that are no people: what single-video fine-tuning is measured on.

Each shows one thing that moves before a camera that nearly rests, to its end: the last part is held out.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from filelock import FileLock

from dragstudy import assets
from dragstudy.data.video import clip_info, read_frames


@dataclass(frozen=True)
class GeneralClip:
    """Where a clip is, and how pairs of its frames are drawn.

    Attributes:
        asset: Name in the asset table.
        file: The video in it.
        fps: Frames a second taken from it.
        max_interval: Largest distance of a pair's frames, in frames.
        shot: First and last second of the part that is used; None is the whole.
    """

    asset: str
    file: str
    fps: float
    max_interval: int = 4
    shot: tuple[float, float] | None = None


GENERAL_CLIPS = {
    "cockatoo": GeneralClip("cockatoo", "cockatoo.mp4", fps=20.0),
    "rabbit": GeneralClip("big-buck-bunny", "bigbuckbunny.mp4", fps=25.0),
    "koala": GeneralClip("wildlife", "testVideo.mp4", fps=30.0, shot=(20.85, 24.55)),
}


def general_clip(name: str) -> Path:
    """The video file of a general clip; one that is part of a film is cut out of it the first time.

    Raises:
        ValueError: If there is no such clip.
        AssetMissing: If its asset was not fetched.
    """
    if name not in GENERAL_CLIPS:
        raise ValueError(f"clip must be one of {', '.join(GENERAL_CLIPS)}, got {name!r}")
    clip = GENERAL_CLIPS[name]
    film = assets.locate(clip.asset, clip.file)
    if clip.shot is None:
        return film
    start, stop = clip.shot
    path = assets.cache_dir() / "shots" / f"{name}-{film.parent.name}-{start:g}-{stop:g}" / f"{name}.mkv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            cut_shot(film, path.with_suffix(".part.mkv"), start, stop).rename(path)
    return path


def cut_shot(film: Path | str, out: Path, start: float, stop: float) -> Path:
    """Write a part of a film without loss: the frames shown from `start` until before `stop`, in seconds.

    Args:
        film: Any file that FFmpeg's libraries read.
        out: The clip, FFV1 in a container such as Matroska (`.mkv`), at the film's rate.
        start: Seconds from the film's first frame.
        stop: The same.

    Returns:
        `out`.

    Raises:
        ValueError: If the film is no video, or shows no frame in that time.
    """
    info = clip_info(film)
    every = read_frames(film, fps=10 * info.fps)  # each frame once
    frames = [frame for _, second, frame in every if start <= second < stop]
    if not frames:
        lasts = f"it lasts {info.duration_s:g} s"
        raise ValueError(f"{film} shows no frame from {start:g} to {stop:g} s: {lasts}")
    with av.open(str(out), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(info.fps).limit_denominator(1001))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0"
        for frame in [av.VideoFrame.from_ndarray(one, format="rgb24") for one in frames]:
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out
