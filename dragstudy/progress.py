"""One progress bar for terminals, live notebooks and notebooks that nobody watches."""

import os
import sys
from collections.abc import Iterable

from tqdm import tqdm

HEADLESS = "DRAGSTUDY_HEADLESS"  # set in the environment of notebooks that papermill, nbclient or nbval run


def progress(items: Iterable | None = None, *, description: str = "", total: int | None = None) -> tqdm:
    """Wrap an iterable in a progress bar; without one, return a bar to `update()` by hand.

    A terminal gets a line of text and a live notebook a widget. Where nobody watches (output to a file,
    an executed notebook) the bar stays silent, so that saved notebooks hold no half-drawn bars.

    Args:
        items: What to iterate over.
        description: Text before the bar.
        total: Number of items, where `items` has no length.
    """
    if "ipykernel" in sys.modules and not os.environ.get(HEADLESS):
        from tqdm.notebook import tqdm as notebook_tqdm

        return notebook_tqdm(items, desc=description, total=total, leave=False)
    return tqdm(items, desc=description, total=total, leave=False, dynamic_ncols=True, disable=None)
