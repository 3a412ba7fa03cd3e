"""A folder in, the benchmark's nets in it out: each as segserve exports it, and as `torch.onnx.export` does alone."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from export.convert import convert
from export.tracing import ServedNet, trace
from service.manifest import ClassSpec, InputSpec, Manifest, OutputSpec, Variant
from training.nets import NETS, build_net
from training.scenes import scene

SHIPPED = Path("models/camvid-enet/2")
SIZE = (360, 480)
CLASSES = 11


@dataclass(frozen=True)
class Subject:
    """One net in one file: the model folder with it alone, the file, and its palette as JSON."""

    models: Path
    file: Path
    palette: Path


def pictures(size: tuple[int, int], count: int) -> NDArray[np.uint8]:
    """Drawn scenes, uint8 (N, H, W, 3)."""
    return np.stack([scene(seed, *size)[0] for seed in range(count)])


def lively(name: str) -> nn.Module:
    """ENet as shipped; the others with seeded weights and batch-norm statistics from pictures."""
    torch.manual_seed(1)
    net = build_net(name, CLASSES)
    if name == "enet":
        net.load_state_dict(load_file(SHIPPED / "weights.safetensors"))
        return net.eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net.train()(torch.from_numpy(pictures((180, 240), 2)).permute(0, 3, 1, 2) / 255)
    return net.eval()


def served(net: nn.Module) -> ServedNet:
    """The net as the service asks it: with pictures as they are."""
    return ServedNet(net, 255, (0, 0, 0), (1, 1, 1)).eval()


def plain_export(net: ServedNet, path: Path) -> None:
    """What `torch.onnx.export` writes by itself."""
    image = torch.zeros((1, *SIZE, 3), dtype=torch.uint8)
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (image,), path, input_names=["image"], dynamo=True, verbose=False, external_data=False)
    logging.disable(logging.NOTSET)


def write(folder: Path, name: str, plain: bool) -> Subject:
    """Write the net into a model folder of its own; one that is there already stays."""
    models = folder / f"{name}-{'plain' if plain else 'own'}"
    bundle = models / name / "1"
    subject = Subject(models, bundle / "model.onnx", folder / "palette.json")
    colors = [f"#{29 * index % 256:02x}{97 * index % 256:02x}{173 * index % 256:02x}" for index in range(CLASSES)]
    subject.palette.parent.mkdir(parents=True, exist_ok=True)
    subject.palette.write_text(json.dumps([list(bytes.fromhex(color[1:])) for color in colors]))
    if (bundle / "model.json").exists():
        return subject
    bundle.mkdir(parents=True, exist_ok=True)
    net = served(lively(name))
    if plain:
        plain_export(net, subject.file)
    else:
        convert(trace(net, NETS[name].stride, SIZE), subject.file, prelu="close")  # as the shipped ENet
    manifest = Manifest(
        name=name,
        version=1,
        license="LicenseRef-benchmark",
        input=InputSpec(height=SIZE[0], width=SIZE[1]),
        output=OutputSpec(logits=onnx.load(subject.file).graph.output[0].name),
        classes=tuple(ClassSpec(id=index, name=str(index), color=color) for index, color in enumerate(colors)),
        variants=(Variant(id="fp32", file="model.onnx"),),
    )
    (bundle / "model.json").write_text(manifest.to_json())
    return subject
