"""The frames of a set of pairs, one at a time: what an autoencoder trains on."""

import cv2
import numpy as np
import torch
from torch import Tensor

from dragstudy.data.pairs import PairDataset


class FrameDataset(PairDataset):
    """The source frame of every kept pair: an item is `image`, `(3, h, w)` in [0, 1]."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        content = np.frombuffer(self.members(index)["source.jpg"], np.uint8)
        frame = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB)
        return {"image": torch.from_numpy(frame).permute(2, 0, 1).float() / 255}
