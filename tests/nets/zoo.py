"""Nets that this project did not write, from configuration alone: what `zoo:build` gives for each name.

Imported in the export's child process, where the packages of `requirements.txt` lie beside it and nothing of segserve
does; and run as a program, `zoo.py NAME FILE PICTURE...`, to make weights that see something: seeded, with batch norm's
statistics from pictures, and a last layer under which every class has its share.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

# torchvision is there without its compiled part; its Python code needs these two to be declared before it is imported.
MISSING: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
MISSING.define("nms(Tensor a) -> Tensor")
MISSING.define("qnms(Tensor a) -> Tensor")

CLASSES = 12
SIZE = (352, 480)
"""Of the pictures that statistics are taken from."""


def smp(decoder: str, encoder: str = "resnet18", **more: Any) -> Callable[[], nn.Module]:
    """A net of segmentation_models_pytorch."""

    def make() -> nn.Module:
        import segmentation_models_pytorch  # type: ignore[import-not-found]

        kind: Callable[..., nn.Module] = getattr(segmentation_models_pytorch, decoder)
        return kind(encoder_name=encoder, encoder_weights=None, classes=CLASSES, **more)

    return make


def torchvision(name: str) -> Callable[[], nn.Module]:
    """A net of torchvision, whose answer is a dict."""

    def make() -> nn.Module:
        from torchvision.models import segmentation  # type: ignore[import-not-found]

        kind: Callable[..., nn.Module] = getattr(segmentation, name)
        return kind(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=None)

    return make


def hugging(kind: str, config: str, **more: Any) -> Callable[[], nn.Module]:
    """A net of transformers, whose answer is a dataclass."""

    def make() -> nn.Module:
        import transformers  # type: ignore[import-not-found]

        backbone = more.pop("backbone_config", None)
        if backbone is not None:
            name, given = backbone
            more["backbone_config"] = getattr(transformers, name)(**given)
        settings = getattr(transformers, config)(num_labels=CLASSES, **more)
        net: nn.Module = getattr(transformers, kind)(settings)
        return net

    return make


STAGES = ["stage1", "stage2", "stage3", "stage4"]
SWIN = {"embed_dim": 32, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 4, 8], "out_features": STAGES}
CONVNEXT = {"hidden_sizes": [32, 64, 128, 256], "depths": [2, 2, 2, 2], "out_features": STAGES}
VIT = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 192, "image_size": 224}

NETS: dict[str, Callable[[], nn.Module]] = {
    "smp-unet": smp("Unet"),
    "smp-unet-efficientnet": smp("Unet", "efficientnet-b0"),
    "smp-unetplusplus": smp("UnetPlusPlus"),
    "smp-manet": smp("MAnet"),
    "smp-linknet": smp("Linknet"),
    "smp-fpn": smp("FPN"),
    "smp-pspnet": smp("PSPNet"),
    "smp-deeplabv3": smp("DeepLabV3"),
    "smp-deeplabv3plus": smp("DeepLabV3Plus"),
    "smp-pan": smp("PAN"),
    "smp-upernet": smp("UPerNet"),
    "smp-segformer": smp("Segformer", "mit_b0"),
    "smp-dpt": smp("DPT", "tu-vit_tiny_patch16_224", decoder_intermediate_channels=(32, 32, 64, 64)),
    "torchvision-lraspp": torchvision("lraspp_mobilenet_v3_large"),
    "torchvision-deeplabv3": torchvision("deeplabv3_mobilenet_v3_large"),
    "segformer": hugging("SegformerForSemanticSegmentation", "SegformerConfig"),
    "upernet-swin": hugging(
        "UperNetForSemanticSegmentation", "UperNetConfig", hidden_size=64, backbone_config=("SwinConfig", SWIN)
    ),
    "upernet-convnext": hugging(
        "UperNetForSemanticSegmentation", "UperNetConfig", hidden_size=64, backbone_config=("ConvNextConfig", CONVNEXT)
    ),
    "mobilenetv2-deeplab": hugging("MobileNetV2ForSemanticSegmentation", "MobileNetV2Config"),
    "mobilevit-deeplab": hugging("MobileViTForSemanticSegmentation", "MobileViTConfig", hidden_sizes=[64, 80, 96]),
    "mobilevitv2-deeplab": hugging("MobileViTV2ForSemanticSegmentation", "MobileViTV2Config", width_multiplier=0.5),
    "dpt": hugging(
        "DPTForSemanticSegmentation",
        "DPTConfig",
        **VIT,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[24, 48, 96, 96],
        fusion_hidden_size=32,
    ),
    "beit": hugging("BeitForSemanticSegmentation", "BeitConfig", **VIT, out_indices=[1, 2, 3, 4]),
    "data2vec": hugging(
        "Data2VecVisionForSemanticSegmentation", "Data2VecVisionConfig", **VIT, out_indices=[1, 2, 3, 4]
    ),
}


def build(name: str) -> nn.Module:
    """The net of that name, with seeded random weights."""
    torch.manual_seed(0)
    return NETS[name]()


def scores(answer: Any) -> Tensor:
    """The scores in a net's answer."""
    found: Tensor = answer if isinstance(answer, Tensor) else answer["out"] if "out" in answer else answer["logits"]
    return found


def lively(net: nn.Module, pictures: Tensor) -> nn.Module:
    """The net with batch norm's statistics from `pictures`, and scores of mean 0 and deviation 1 for each class."""
    net.eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
            module.train()
    last: list[nn.Conv2d] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: last.append(module))
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d) and module.out_channels == CLASSES and "aux" not in name
    ]
    with torch.no_grad():
        net(pictures)
        net.eval()
        answer = scores(net(pictures))
        mean, deviation = answer.mean(dim=(0, 2, 3)), answer.std(dim=(0, 2, 3))
        score = last[-1]
        if score.bias is None:
            raise SystemExit("the last layer has no bias to set")
        score.weight /= deviation.view(-1, 1, 1, 1)
        score.bias.copy_((score.bias - mean) / deviation)
        for _ in range(20):
            winners = scores(net(pictures)).argmax(1)
            shares = torch.bincount(winners.ravel(), minlength=CLASSES) / winners.numel()
            score.bias -= 0.2 * (CLASSES * shares + 0.1).log()
    for hook in hooks:
        hook.remove()
    return net


def read(files: list[str], size: tuple[int, int]) -> Tensor:
    """Pictures, float32 (N, 3, H, W), from 0 to 1."""
    height, width = size
    pictures = [np.asarray(Image.open(file).convert("RGB").resize((width, height))) for file in files]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255


def main(name: str, file: str, *pictures: str) -> None:
    """Write the state dict of a lively net."""
    net = build(name)
    try:
        lively(net, read(list(pictures), SIZE))
    except (AssertionError, RuntimeError, ValueError):  # it takes one size alone
        net = lively(build(name), read(list(pictures), (224, 224)))
    torch.save({"state_dict": net.state_dict()}, Path(file))


if __name__ == "__main__":
    main(*sys.argv[1:])
