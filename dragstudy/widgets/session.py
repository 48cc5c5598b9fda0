"""An editing session without a window: pictures, what is drawn on them, edits that run beside the user."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from threading import Event
from time import perf_counter
from typing import Any

from PIL import Image

from dragstudy._edit import load_silently, settable_arguments
from dragstudy._options import check_options
from dragstudy.drags import DragInstruction
from dragstudy.images import ImageLike, fit_size, load_image, to_pil
from dragstudy.pipelines import DragPipeline
from dragstudy.widgets.edits import Edit, Progress, Round, carry_out
from dragstudy.widgets.history import History
from dragstudy.widgets.mask import Loaded
from dragstudy.widgets.preview import Preview, PreviewMaker
from dragstudy.widgets.sketch import Point, Sketch
from dragstudy.widgets.worker import Worker

SHOW_EVERY = 0.3  # seconds between the intermediate pictures of an edit: each has to be decoded


class DragSession:
    """Draw on a photograph, edit it, go on with the result: all that an editor does but for the window.

    Edits and previews run in one thread of their own: one at a time, and of each kind the newest wins.
    Everything that was asked for can be undone, saved and replayed.

    Args:
        image: A photograph, of any kind that `dragstudy.images.load_image` reads; None: to be opened later.
        method: As `dragstudy.load` knows it.
        weights: As `dragstudy.load` knows them.
        seed: Of every edit, until it is changed.
        settings: Further arguments of the pipeline's call, such as `{"detail": "compose"}`.
        device: Where to edit; by default where the weights are loaded.
        pipelines: Those that are loaded already, by their method: fine-tuned ones, or another session's.

    Attributes:
        pictures: The photographs that were opened and the results, in the order of their coming. A number
            stands for the same picture for ever.
        names: Where a picture is from, by its number, for photographs from files.
        rounds: The edits that were made.
        settings_by_method: What was changed of each method's defaults.
        history: What is drawn, before and after.
        progress: Of the edit that runs, or None.
        preview: The newest preview, or None.
        error: What the last edit or preview raised, or None.

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
        self.pictures: tuple[Image.Image, ...] = ()
        self.names: dict[int, str] = {}
        self.rounds: tuple[Round, ...] = ()
        self.history = History()
        self.weights, self.seed, self.device = weights, seed, device
        self.progress: Progress | None = None
        self.preview: Preview | None = None
        self.error: Exception | None = None
        self.settings_by_method: dict[str, dict[str, Any]] = {}
        self._pipelines = {(name, weights): pipe for name, pipe in (pipelines or {}).items()}
        self._callbacks: list[Callable[[str], None]] = []
        self._make_preview = PreviewMaker()
        self._worker = Worker(["edit", "preview"], self._fail)
        self.use(method, **(settings or {}))
        if image is not None:
            self.open(image)
            self.history = History(self.sketch)  # there is nothing before the first photograph

    # What is asked for

    @property
    def sketch(self) -> Sketch:
        """What is drawn now."""
        return self.history.present

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
    def settings(self) -> dict[str, Any]:
        """The settings of the present method that are not its own defaults."""
        return dict(self.settings_by_method.get(self.method, {}))

    def use(self, method: str | None = None, **settings: Any) -> None:
        """Choose a method, by default the present one, and its settings; each method keeps its own.

        Args:
            method: As `dragstudy.load` knows it.
            **settings: Arguments of its call; None gives one back to the method's default.

        Raises:
            ValueError: If there is no such method or setting.
        """
        method = method or self.method
        known = settable_arguments(method)
        chosen = {name: value for name, value in settings.items() if value is not None}
        chosen = check_options(chosen, known, f"{method} has no setting")
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

    # Drawing; each call can be undone

    def act(self, action: Mapping[str, Any]) -> None:
        """Apply an action of `History.apply`."""
        self._go(self.history.apply(action))

    def show(self, sketch: Sketch) -> None:
        """Go on to another sketch."""
        self._go(self.history.commit(sketch))

    def follow(self, sketch: Sketch) -> None:
        """Go where a canvas with a history of its own has gone.

        Raises:
            ValueError: If the sketch is of no picture of the session.
        """
        if not 0 <= sketch.picture < len(self.pictures):
            raise ValueError(f"the session has no picture {sketch.picture}")
        self._go(self.history.follow(sketch))

    def drag(self, handle: Point, target: Point) -> None:
        """Add a drag, in pixels of the picture."""
        self.act({"type": "add", "handle": handle, "target": target})

    def move(self, index: int, *, handle: Point | None = None, target: Point | None = None) -> None:
        """Move an end of a drag, or both."""
        for end, to in (("handle", handle), ("target", target)):
            if to is not None:
                self.act({"type": "move", "index": index, "end": end, "to": to})

    def remove(self, index: int) -> None:
        """Take a drag away."""
        self.act({"type": "remove", "index": index})

    def brush(self, *points: Point, radius: float) -> None:
        """Paint where the picture may change, along a line of points, in pixels of the picture."""
        self._stroke(points, radius, 1)

    def erase(self, *points: Point, radius: float) -> None:
        """Paint where the picture must stay."""
        self._stroke(points, radius, 0)

    def fill(self, value: int = 1) -> None:
        """Let everything change (1), or nothing (0)."""
        self.act({"type": "mask", "op": {"op": "fill", "value": value}})

    def invert(self) -> None:
        """Let change what must stay, and keep what might change."""
        self.act({"type": "mask", "op": {"op": "invert"}})

    def set_mask(self, mask: Any) -> None:
        """Take a mask in [0, 1], `(h, w)`, of the picture's size, for what was painted; None: no mask."""
        operations = () if mask is None else (Loaded.from_mask(mask),)
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

    def clear(self, what: str = "drags") -> None:
        """Take all drags away, or the `"mask"`."""
        self.act({"type": "clear", "what": what})

    def undo(self) -> None:
        """Take the last change back, if there is any."""
        self.act({"type": "undo"})

    def redo(self) -> None:
        """Do again what was undone last."""
        self.act({"type": "redo"})

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
        self.sketch.instruction(self.image.size)  # refused here, where the user is
        edits = [self.present_edit(method) for method in methods or (self.method,)]
        self.error = None
        self._worker.submit("edit", partial(self._run_all, edits))
        self._tell("state")

    def request_preview(self, sketch: Sketch | None = None) -> None:
        """Begin a preview of what is drawn, or of another sketch, such as one that is being drawn."""
        self._worker.submit("preview", lambda _: self._run_preview(sketch or self.sketch))

    def cancel(self) -> None:
        """End the edit that runs within one of its steps, and forget those that wait."""
        self._worker.cancel("edit")

    @property
    def busy(self) -> bool:
        """Whether an edit runs."""
        return self._worker.running == "edit"

    def wait(self, timeout: float | None = None) -> None:
        """Wait until no edit and no preview runs.

        Raises:
            TimeoutError: If that takes longer than `timeout` seconds.
            Exception: What the last edit raised.
        """
        if not self._worker.wait(timeout):
            raise TimeoutError(f"the session still works after {timeout} seconds")
        if self.error is not None:
            raise self.error

    def on_update(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Be told of changes; gives back a function that ends that.

        The callback gets one of `"sketch"`, `"settings"`, `"state"`, `"pictures"`, `"preview"`, `"progress"`,
        `"rounds"` and `"error"`, and reads the session's attribute. The last five may come from the session's
        own thread.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

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
                self._fail(error)
        self.progress = None
        self._tell("progress")
        self._tell("state")

    def _run_one(self, edit: Edit, cancelled: Event, number: int, count: int) -> None:
        self._report(Progress(edit, number=number, count=count))
        pipe = self.pipeline(edit.method, edit.weights)  # loading is not editing
        start = shown = perf_counter()

        def callback(pipe: DragPipeline, step: int, timestep: Any, tensors: Mapping) -> dict:
            nonlocal shown
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
        self._tell("preview")

    def _report(self, progress: Progress) -> None:
        self.progress = progress
        self._tell("progress")

    def _fail(self, error: Exception) -> None:
        self.error = error
        self._tell("error")

    def _add(self, image: Image.Image) -> int:
        self.pictures = (*self.pictures, image)
        self._tell("pictures")
        return len(self.pictures) - 1

    def _stroke(self, points: tuple[Point, ...], radius: float, value: int) -> None:
        stroke = {"op": "stroke", "points": points, "radius": radius, "value": value}
        self.act({"type": "mask", "op": stroke})

    def _go(self, history: History) -> None:
        if history is not self.history:
            self.history = history
            self._tell("sketch")

    def _tell(self, what: str) -> None:
        for callback in tuple(self._callbacks):
            callback(what)
