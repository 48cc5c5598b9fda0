"""Training: one small loop, and one short file a model."""

from dragstudy import _torchvision

_torchvision.require()  # diffusers reaches torchvision through peft and transformers as it is imported

from dragstudy.training.loop import LoopSettings, Task, train_loop  # noqa: E402
from dragstudy.training.run import TRAINABLE, train  # noqa: E402

__all__ = ["TRAINABLE", "LoopSettings", "Task", "train", "train_loop"]
