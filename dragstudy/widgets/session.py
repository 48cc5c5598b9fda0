"""An editing session without a window: pictures, what is drawn on them, edits that run beside the user."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from threading import Event
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from dragstudy._edit import load_silently, settable_arguments
from dragstudy.drags import DragInstruction
from dragstudy.images import ImageLike, fit_size, load_image, to_pil
from dragstudy.pipelines import DragPipeline
from dragstudy.widgets.drawing import Drawing
from dragstudy.widgets.edits import Edit, Progress, Round, carry_out, check_settings
from dragstudy.widgets.history import History
from dragstudy.widgets.mask import Loaded
from dragstudy.widgets.preview import Preview, PreviewMaker
from dragstudy.widgets.sketch import Sketch
from dragstudy.widgets.worker import Worker

SHOW_EVERY = 0.3  # seconds between the intermediate pictures of an edit: each has to be decoded


class DragSession(Drawing):
    """Draw on a photograph, edit it, go on with the result: all that an editor does but for the window.

    Edits and previews run in one thread of their own, of each kind the newest; a preview does not wait for an
    edit, but for one of its steps. Everything that was asked for can be undone, saved and replayed.

    Args:
        image: A photograph, of any kind that `dragstudy.images.load_image` reads; None: to be opened later.
        method: As `dragstudy.load` knows it.
        weights: As `dragstudy.load` knows them.
        seed: Of every edit, until it is changed.
        settings: Further arguments of the pipeline's call, such as `{"detail": "compose"}`.
        device: Where to edit; by default where the weights are loaded.
        pipelines: Those that are loaded already, by their method, such as fine-tuned ones. Two sessions must
            not edit by the same one at the same time.

    Attributes:
        pictures: The photographs that were opened and the results, in the order of their coming. A number
            stands for the same picture for ever.
        names: Where a picture is from, by its number, for photographs from files.
        rounds: The edits that were made.
        settings_by_method: What was changed of each method's defaults.
        progress: Of the edit that runs, or None.
        preview: The newest preview, or None.

    Raises:
        ValueError: If the image cannot be read, or there is no such method or setting.

    Example:
        >>> session = DragSession(Image.new("RGB", (96, 64), "teal"), method="warp")
        >>> session.drag((30, 30), (40, 32))
        >>> session.edit()
        >>> session.wait()
        >>> session.rounds[0].result, session.pictures[1].size
        (1, (96, 64))
    """

    def __init__(
        self,
        image: ImageLike | None = None,
        method: str = "instantdrag-splat",
        *,
        weights: str = "tiny",
        seed: int = 0,
        settings: Mapping[str, Any] | None = None,
        device: str | None = None,
        pipelines: Mapping[str, DragPipeline] | None = None,
    ):
        super().__init__()
        self.pictures: tuple[Image.Image, ...] = ()
        self.names: dict[int, str] = {}
        self.rounds: tuple[Round, ...] = ()
        self.weights, self.seed, self.device = weights, seed, device
        self.progress: Progress | None = None
        self.preview: Preview | None = None
        self._errors: dict[str, Exception] = {}  # of the last edit, of the last preview
        self.settings_by_method: dict[str, dict[str, Any]] = {}
        self._pipelines = {(name, weights): pipe for name, pipe in (pipelines or {}).items()}
        self._make_preview = PreviewMaker()
        self._worker = Worker(["edit", "preview"], partial(self._fail, "preview"))
        self.use(method, **(settings or {}))
        if image is not None:
            self.open(image)
            self.history = History(self.sketch)  # there is nothing before the first photograph

    # What is asked for

    @property
    def image(self) -> Image.Image:
        """The picture that is drawn on.

        Raises:
            ValueError: If there is none yet.
        """
        if not self.pictures:
            raise ValueError("open a photograph first")
        return self.pictures[self.sketch.picture]

    @property
    def error(self) -> Exception | None:
        """What the last edit raised, or else the last preview, or None."""
        return self._errors.get("edit") or self._errors.get("preview")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the present method that are not its own defaults."""
        return dict(self.settings_by_method.get(self.method, {}))

    def use(self, method: str | None = None, **settings: Any) -> None:
        """Choose a method, by default the present one, and its settings; each method keeps its own.

        Args:
            method: As `dragstudy.load` knows it.
            **settings: Arguments of its call; None gives one back to the method's default.

        Raises:
            ValueError: If there is no such method or setting, or a value cannot be saved.
        """
        method = method or self.method
        chosen = {name: value for name, value in settings.items() if value is not None}
        chosen = check_settings(method, chosen)
        kept = {k: v for k, v in self.settings_by_method.get(method, {}).items() if k not in settings}
        self.method, self.settings_by_method[method] = method, kept | chosen
        self._tell("settings")

    def open(self, image: ImageLike, name: str | None = None) -> int:
        """Begin with another photograph, which can be undone; gives back its number.

        Args:
            image: Any kind that `dragstudy.images.load_image` reads.
            name: Where it is from, for the code of `as_code`; a path says so itself.

        Raises:
            ValueError: If it cannot be read, or is too narrow.
        """
        photo = load_image(image)
        fit_size(*photo.size)
        number = self._add(photo)
        if name or isinstance(image, str) or hasattr(image, "__fspath__"):
            self.names[number] = name or str(image)
        self.show(Sketch(picture=number))
        return number

    def continue_from(self, picture: int) -> None:
        """Draw on another picture of the session, such as a result; the mask stays where it fits.

        Raises:
            ValueError: If there is no such picture.
        """
        if not 0 <= picture < len(self.pictures):
            raise ValueError(f"the session has the pictures 0 to {len(self.pictures) - 1}, got {picture}")
        fits = self.pictures[picture].size == self.image.size
        self.show(Sketch(picture=picture, mask=self.sketch.mask if fits else ()))

    # Drawing, beside what `Drawing` has

    def follow(self, sketch: Sketch) -> None:
        """Go where a canvas with a history of its own has gone.

        Raises:
            ValueError: If the sketch is of no picture of the session.
        """
        if not 0 <= sketch.picture < len(self.pictures):
            raise ValueError(f"the session has no picture {sketch.picture}")
        super().follow(sketch)

    def set_mask(self, mask: Any) -> None:
        """Take a mask in [0, 1], `(h, w)`, for what was painted; None: no mask.

        Raises:
            ValueError: If it is not of the picture's size.
        """
        if mask is not None and np.shape(mask) != self.image.size[::-1]:
            raise ValueError(f"the mask must be of {self.image.size[::-1]}, got {np.shape(mask)}")
        operations = () if mask is None else (Loaded.from_mask(np.asarray(mask)),)
        self.show(replace(self.sketch, mask=operations))

    def set_drags(self, drags: DragInstruction) -> None:
        """Take drags and mask as a pipeline takes them, such as from a file, for what is drawn.

        Raises:
            ValueError: If they are for a picture of another size.
        """
        if drags.image_size not in (None, self.image.size):
            raise ValueError(f"the drags are for a picture of {drags.image_size}, got {self.image.size}")
        pairs = zip(drags.handle_points.tolist(), drags.target_points.tolist(), strict=True)
        mask = () if drags.mask is None else (Loaded.from_mask(drags.mask),)
        drawn = tuple((tuple(handle), tuple(target)) for handle, target in pairs)
        self.show(Sketch(self.sketch.picture, drawn, mask))

    # Working

    def present_edit(self, method: str | None = None) -> Edit:
        """The edit that is drawn now, by the present method or another, each with its own settings."""
        method = method or self.method
        settings = dict(self.settings_by_method.get(method, {}))
        return Edit(self.sketch, method, self.weights, self.seed, settings)

    def edit(self, *methods: str) -> None:
        """Begin to edit what is drawn; an edit that runs is cancelled.

        Args:
            *methods: One edit by each, one after the other; by default one by the present method.

        Raises:
            ValueError: If there is nothing to do, it does not fit the picture, or there is no such method.
        """
        for method in methods:
            settable_arguments(method)
        edits = [self.present_edit(method) for method in methods or (self.method,)]
        replace(self.sketch, mask=()).instruction(self.image.size)  # refused here, where the user is
        self._errors.clear()
        self._worker.submit("edit", partial(self._run_all, edits))

    def request_preview(self, sketch: Sketch | None = None) -> None:
        """Begin a preview of what is drawn, or of another sketch, such as one that is being drawn."""
        self._worker.submit("preview", lambda _: self._run_preview(sketch or self.sketch))

    def cancel(self) -> None:
        """End the edit that runs within one of its steps, and forget those that wait."""
        self._worker.cancel("edit")

    @property
    def busy(self) -> bool:
        """Whether an edit runs or waits."""
        return self._worker.busy("edit")

    def wait(self, timeout: float | None = None) -> None:
        """Wait until no edit and no preview runs.

        Raises:
            TimeoutError: If that takes longer than `timeout` seconds.
            Exception: What the last edit raised, or else the last preview.
        """
        if not self._worker.wait(timeout):
            raise TimeoutError(f"the session still works after {timeout} seconds")
        if self.error is not None:
            raise self.error

    def on_update(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Be told of changes; gives back a function that ends that.

        The callback gets one of `"sketch"`, `"settings"`, `"pictures"`, `"preview"`, `"progress"`,
        `"rounds"` and `"error"`, and reads the session's attribute. The last five may come from the session's
        own thread.
        """
        return super().on_update(callback)

    def pipeline(self, method: str | None = None, weights: str | None = None) -> DragPipeline:
        """The pipeline of a method, loaded at the first call."""
        key = method or self.method, weights or self.weights
        if key not in self._pipelines:
            pipe = load_silently(*key, self.device)
            pipe.set_progress_bar_config(disable=True)
            self._pipelines[key] = pipe
        return self._pipelines[key]

    def _run_all(self, edits: list[Edit], cancelled: Event) -> None:
        for number, edit in enumerate(edits, start=1):
            if cancelled.is_set():
                break
            try:
                self._run_one(edit, cancelled, number, len(edits))
            except Exception as error:  # the other methods have a right to run; `wait` raises it
                self._fail("edit", error)
        self._report(None)

    def _run_one(self, edit: Edit, cancelled: Event, number: int, count: int) -> None:
        self._report(Progress(edit, number=number, count=count))
        pipe = self.pipeline(edit.method, edit.weights)  # loading is not editing
        if cancelled.is_set():
            return
        start = shown = perf_counter()

        def callback(pipe: DragPipeline, step: int, timestep: Any, tensors: Mapping) -> dict:
            nonlocal shown
            self._worker.let_in("preview")
            image = self.progress.image
            if cancelled.is_set():
                pipe._interrupt = True
            elif tensors and perf_counter() - shown > SHOW_EVERY:
                latents = tensors.get("denoised", tensors.get("latents"))
                image, shown = to_pil(pipe.decode_latents(latents[:1])), perf_counter()
            seconds = perf_counter() - start
            self._report(Progress(edit, step + 1, pipe.num_timesteps, seconds, image, number, count))
            return {}

        photo = self.pictures[edit.sketch.picture]
        image = carry_out(pipe, photo, edit, callback)
        if not cancelled.is_set():
            self.rounds = (*self.rounds, Round(edit, self._add(image), perf_counter() - start))
            self._tell("rounds")

    def _run_preview(self, sketch: Sketch) -> None:
        pipe = self.pipeline()  # loaded before the first drag waits for it
        preview = None
        if sketch.drags:
            preview = self._make_preview(pipe, self.pictures[sketch.picture], sketch)
        self.preview = preview
        self._errors.pop("preview", None)
        self._tell("preview")

    def _report(self, progress: Progress | None) -> None:
        self.progress = progress
        self._tell("progress")

    def _fail(self, kind: str, error: Exception) -> None:
        self._errors[kind] = error
        self._tell("error")

    def _add(self, image: Image.Image) -> int:
        with self._lock:
            number = len(self.pictures)
            self.pictures = (*self.pictures, image)
        self._tell("pictures")
        return number
