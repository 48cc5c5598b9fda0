"""Training: one small loop, and one short file a model."""

from dragstudy.training.loop import LoopSettings, Task, train_loop
from dragstudy.training.run import TRAINABLE, train

__all__ = ["LoopSettings", "TRAINABLE", "Task", "train", "train_loop"]
