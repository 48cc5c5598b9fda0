"""Networks: autoencoder, backbone, FlowGen, FlowDiffusion. All are diffusers models (`save_pretrained`)."""

from dragstudy import _torchvision

_torchvision.require()  # diffusers reaches torchvision through peft and transformers as it is imported
