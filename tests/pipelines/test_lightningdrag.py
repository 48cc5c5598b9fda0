"""LightningDrag edits pictures as every method does, and keeps to its paper."""

from ..tiny import tiny_lightningdrag
from .contract import PipelineContract


class TestLightningDrag(PipelineContract):
    has_flow = False

    @classmethod
    def make(cls):
        return tiny_lightningdrag()


class TestLightningDragWithOrigins(PipelineContract):
    has_flow = False

    @classmethod
    def make(cls):
        return tiny_lightningdrag("origins")
