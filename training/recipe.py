"""The choices behind a training run, as one frozen record that travels with the weights."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from service.manifest import InputSpec
from training.nets import NETS
from training.pretrained import IMAGENET, MEAN, STD


class Recipe(BaseModel):
    """Everything that decides how a net is trained; the same recipe and seed on the same CPU give the same net."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    net: str = Field("enet", description="a built-in net")
    net_width: int | None = Field(None, ge=4, description="channels of the net's first stage; by default the paper's")
    init: str | None = Field(
        None,
        description="what the weights begin as: imagenet (the encoder's, for efficientnet-lite0 to -lite2), or those "
        "of a bundle's folder or a checkpoint; by default random",
    )
    fit: Literal["stretch", "native"] = Field(
        "stretch", description="how pictures are served: brought to width x height, or at their own size"
    )
    height: int = Field(360, gt=0, description="height in pixels at which the net will be served")
    width: int = Field(480, gt=0, description="width in pixels at which the net will be served")
    mean: tuple[float, float, float] = Field((0.0, 0.0, 0.0), description="subtracted from value / 255")
    std: tuple[float, float, float] = Field((1.0, 1.0, 1.0), description="what the difference is divided by")
    crop_height: int = Field(288, gt=0, description="height of the training crops in pixels")
    crop_width: int = Field(384, gt=0, description="width of the training crops in pixels")
    epochs: int = Field(40, gt=0)
    batch: int = Field(4, gt=0, description="pictures a step")
    learning_rate: float = Field(3e-3, gt=0, description="the schedule's highest")
    encoder_rate: float = Field(
        1.0, gt=0, le=1, description="the share of it with which an encoder learns that has learnt before"
    )
    weight_decay: float = Field(1e-2, ge=0, description="of AdamW; norms, biases and slopes are not decayed")
    schedule: Literal["one-cycle", "poly"] = "one-cycle"
    scale_low: float = Field(0.6, gt=0, description="smallest random scale")
    scale_high: float = Field(1.8, gt=0, description="largest random scale")
    flip: bool = Field(True, description="mirror half of the pictures")
    turn: bool = Field(False, description="turn pictures by a random number of right angles: where up means nothing")
    jitter: float = Field(
        0.0, ge=0, lt=1, description="brightness, contrast and saturation vary by up to this share; 0: not at all"
    )
    class_weights: Literal["none", "log", "median"] = Field(
        "log", description="log: 1 / ln(1.1 + share), after ENet; median: median share / share, after SegNet"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread evenly over all classes")
    ohem: float = Field(
        0.0, ge=0, lt=1, description="learn only from pixels whose class gets less than this probability; 0: from all"
    )
    jaccard: float = Field(
        0.0, ge=0, description="weight of the soft Jaccard loss, which sees a rare class as a frequent one; 0: none"
    )
    teacher: str | None = Field(
        None, description="a bundle's folder or a checkpoint whose net is imitated as well; by default none"
    )
    teacher_share: float = Field(0.5, gt=0, le=1, description="how much the teacher's answers count against the labels")
    teacher_flip: bool = Field(False, description="ask the teacher for the mirrored picture, too, and take the mean")
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights, which is then scored and saved; 0: none",
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="bf16: autocast, pays on GPUs and on CPUs with AVX-512 BF16"
    )
    validate_every: int = Field(2, gt=0, description="epochs between two validations")
    patience: int | None = Field(
        None, gt=0, description="end after so many validations without a better mIoU; by default never early"
    )
    seed: int = 0

    @property
    def input(self) -> InputSpec:
        """How a picture becomes this net's input."""
        sized = self.fit == "stretch"
        return InputSpec(
            fit=self.fit,
            height=self.height if sized else None,
            width=self.width if sized else None,
            multiple_of=NETS[self.net].stride,
            mean=self.mean,
            std=self.std,
        )

    @model_validator(mode="before")
    @classmethod
    def _as_the_weights_were_trained(cls, data: Any) -> Any:
        begins = isinstance(data, dict) and data.get("init") == IMAGENET
        return {"mean": MEAN, "std": STD} | data if begins else data

    @model_validator(mode="after")
    def _scales_in_order(self) -> Self:
        if self.scale_low > self.scale_high:
            raise ValueError(f"scale_low {self.scale_low} is above scale_high {self.scale_high}")
        return self

    @field_validator("net")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in NETS:
            raise ValueError(f"there is no built-in net {value!r}: choose one of {', '.join(sorted(NETS))}")
        return value
