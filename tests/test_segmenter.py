"""A picture goes in, a mask of its size comes out, whatever the net wants to be fed and however it answers."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer
from typing import Any, Literal

import numpy as np
import pytest

from service.bundle import open_bundle
from service.cores import CorePool
from service.errors import BundleError, DeadlineExceeded
from service.graph import Answer, Tensor
from service.manifest import InputSpec, OutputSpec, read_manifest
from service.segmenter import Segmentation, Segmenter
from service.sharing import Sharing
from service.turn import Stop, Turn
from tests.bundles import (
    BLUE,
    ENDLESS,
    GREEN,
    RED,
    REDNESS,
    WHITE,
    Net,
    bands,
    fixed_segmenter,
    write_bundle,
)
from tests.pictures import noise

NATIVE = InputSpec(fit="native")
FITS: dict[str, dict[str, Any]] = {
    "stretch": {"height": 48, "width": 64},
    # Green is the third class: where padding is mistaken for picture, it shows.
    "letterbox": {"height": 64, "width": 64, "pad_value": GREEN},
    "native": {"multiple_of": 32, "max_pixels": 4096, "pad_value": GREEN},
    "tile": {"height": 48, "width": 64, "overlap": 16, "pad_value": GREEN},
}


def opened(
    root: Path,
    net: Net,
    spec: InputSpec | None = None,
    output: OutputSpec | None = None,
    classes: tuple[str, ...] = ("red", "green", "blue"),
) -> Segmenter:
    """A net, written and opened as the service does it."""
    folder = write_bundle(root, nets=net, spec=spec, output=output, classes=classes, golden=False)
    return open_bundle(folder, ["cpu"], sharing=Sharing(1)).segmenter


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("size", [(48, 64), (300, 200), (31, 97), (7, 5)])
@pytest.mark.parametrize("fit", FITS)
def test_every_fit_finds_red_left_and_blue_right(tmp_path: Path, fit: Any, size: tuple[int, int], stride: int) -> None:
    segment = opened(tmp_path, Net(stride=stride), InputSpec(fit=fit, **FITS[fit]))
    picture = bands(RED, BLUE, height=size[0], width=size[1])
    mask = segment(picture).mask
    assert mask.shape == size
    assert mask.dtype == np.uint8
    margin = max(stride, math.ceil(size[1] / 16))  # as near to the border as the net can see
    half = size[1] // 2
    assert (mask[:, : max(half - margin, 0)] == 0).all()
    assert (mask[:, half + margin :] == 2).all()


@pytest.mark.parametrize("fit", ["native", "tile"])
def test_without_shrinking_every_pixel_of_noise_is_right(tmp_path: Path, fit: Any) -> None:
    sizes = {} if fit == "native" else {"height": 48, "width": 64}
    segment = opened(tmp_path, Net(), InputSpec(fit=fit, multiple_of=32, overlap=16, **sizes))
    picture = noise(131, 97)
    found = segment(picture)
    np.testing.assert_array_equal(found.mask, picture.argmax(axis=2))
    np.testing.assert_array_equal(found.coarse, found.mask)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("output_layout", ["NHWC", "NCHW"])
def test_channels_may_come_first_or_last_on_either_side(
    tmp_path: Path, dtype: Any, layout: Any, output_layout: Any
) -> None:
    segment = opened(tmp_path, Net(dtype=dtype, layout=layout, output_layout=output_layout))
    picture = noise(16, 24)
    np.testing.assert_array_equal(segment(picture).mask, picture.argmax(axis=2))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_net_that_takes_bgr_sees_blue_first(tmp_path: Path, layout: Any) -> None:
    backwards = Net(weights=((0, 0, 1), (0, 1, 0), (1, 0, 0)), layout=layout)
    segment = opened(tmp_path, backwards, InputSpec(fit="native", channels="BGR", layout=layout))
    picture = noise(16, 24)
    np.testing.assert_array_equal(segment(picture).mask, picture.argmax(axis=2))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_net_that_takes_grey_sees_brightness(tmp_path: Path, layout: Any) -> None:
    net = Net(weights=((-1,), (1,)), bias=(255, 0), layout=layout)
    segment = opened(tmp_path, net, classes=("dark", "light"))
    assert segment(bands(BLUE, GREEN, RED, WHITE, height=4, width=4)).mask[0].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("batch", [1, 4])
def test_a_graph_of_fixed_batch_is_answered_for_one_picture(tmp_path: Path, batch: int) -> None:
    segment = opened(tmp_path, Net(batch=batch, height=16, width=24))
    picture = noise(16, 24)
    np.testing.assert_array_equal(segment(picture).mask, picture.argmax(axis=2))


def test_the_named_output_counts_not_the_first(tmp_path: Path) -> None:
    segment = opened(tmp_path, Net(decoys=("aux", "deep"), logits="out"))
    picture = noise(16, 24)
    np.testing.assert_array_equal(segment(picture).mask, picture.argmax(axis=2))


def test_a_net_that_answers_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"scores of 2 classes are expected"):
        opened(tmp_path, Net(), classes=("red", "green"))


def test_one_channel_under_softmax_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"scores of 2 classes are expected"):
        opened(tmp_path, Net(weights=REDNESS), output=OutputSpec(), classes=("other", "red"))


@pytest.mark.parametrize("sigmoid", [False, True], ids=["score", "probability"])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_one_channel_is_class_1_above_the_threshold(tmp_path: Path, sigmoid: bool, threshold: float) -> None:
    output = OutputSpec(activation="probabilities" if sigmoid else "sigmoid", threshold=threshold)
    segment = opened(tmp_path, Net(weights=REDNESS, sigmoid=sigmoid), output=output, classes=("other", "red"))
    picture = noise(32, 32)
    score = picture.astype(float) @ np.array(REDNESS[0])
    probability = 1 / (1 + np.exp(-score))
    clear = np.abs(probability - threshold) > 1e-4
    np.testing.assert_array_equal(segment(picture).mask[clear], (probability > threshold)[clear])


def confidence(scores: list[float], output: OutputSpec, classes: int | None = None) -> float:
    """The confidence, 0 to 1, where a net answers these scores."""
    column = np.array(scores, np.float32)[:, None, None]
    found = fixed_segmenter(Answer(column), classes or len(scores), NATIVE, output)(np.zeros((1, 1, 3), np.uint8))
    assert found.confidence is not None and found.confidence.dtype == np.uint8
    return float(found.confidence[0, 0] / 255)


@pytest.mark.parametrize("temperature", [0.5, 1, 3])
def test_confidence_is_the_highest_softmax_after_temperature(temperature: float) -> None:
    output = OutputSpec(temperature=temperature)
    wanted = 1 / (1 + math.exp(-2 / temperature) + math.exp(-3 / temperature))
    assert confidence([4, 2, 1], output) == pytest.approx(wanted, abs=1 / 255)


@pytest.mark.parametrize(("score", "wanted"), [(2.0, 0.881), (-2.0, 0.881), (0.0, 0.5)])
def test_confidence_of_one_channel_is_that_of_the_class_that_won(score: float, wanted: float) -> None:
    assert confidence([score], OutputSpec(activation="sigmoid"), 2) == pytest.approx(wanted, abs=1 / 255)


def test_temperature_does_not_change_which_class_a_confidence_belongs_to() -> None:
    # 3 is above the threshold (sigmoid 0.95), so class 1 wins; the temperature lowers its probability to 0.82.
    output = OutputSpec(activation="sigmoid", threshold=0.9, temperature=2)
    assert confidence([3], output, 2) == pytest.approx(0.818, abs=1 / 255)


def test_confidence_of_several_sigmoid_channels_is_the_highest() -> None:
    assert confidence([-1, 1, 0], OutputSpec(activation="sigmoid")) == pytest.approx(0.731, abs=1 / 255)


def test_probabilities_are_taken_as_they_are() -> None:
    assert confidence([0.1, 0.7, 0.2], OutputSpec(activation="probabilities")) == pytest.approx(0.7, abs=1 / 255)


def test_a_classs_confidence_is_the_mean_over_where_the_net_saw_it() -> None:
    scores = np.array([[[0.9, 0.7, 0.2]], [[0.1, 0.3, 0.8]], [[0, 0, 0]]], np.float32)
    segment = fixed_segmenter(Answer(scores), 3, NATIVE, OutputSpec(activation="probabilities"))
    found = segment(np.zeros((1, 3, 3), np.uint8))
    assert found.class_confidence(0) == pytest.approx(0.8, abs=1 / 255)
    assert found.class_confidence(1) == pytest.approx(0.8, abs=1 / 255)
    assert found.class_confidence(2) is None


def test_class_ids_from_the_graph_are_the_mask_where_their_size_is_the_pictures() -> None:
    scores, labels = np.zeros((3, 4, 6), np.float32), np.full((4, 6), 2, np.uint8)
    segment = fixed_segmenter(Answer(scores, labels), 3, InputSpec(height=4, width=6), OutputSpec(labels="labels"))
    assert (segment(np.zeros((4, 6, 3), np.uint8)).mask == 2).all()
    assert (segment(np.zeros((8, 12, 3), np.uint8)).mask == 0).all()


def test_a_net_that_gives_only_class_ids_has_a_mask_and_no_confidence(tmp_path: Path) -> None:
    output = OutputSpec(logits=None, labels="labels")
    segment = opened(tmp_path, Net(labels="labels", height=16, width=16), output=output)
    found = segment(bands(RED, BLUE, height=64, width=80))
    assert found.confidence is None
    assert found.class_confidence(0) is None
    assert (found.mask[:, :35] == 0).all()
    assert (found.mask[:, 45:] == 2).all()


@pytest.mark.parametrize("size", [(1, 5), (5, 1), (1, 1)])
def test_a_net_that_gives_only_class_ids_takes_a_picture_of_one_pixel_a_side(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    segment = opened(tmp_path, Net(labels="labels"), output=OutputSpec(logits=None, labels="labels"))
    assert (segment(bands(BLUE, height=size[0], width=size[1])).mask == np.full(size, 2)).all()


def test_class_ids_that_the_manifest_does_not_list_are_refused(tmp_path: Path) -> None:
    output = OutputSpec(logits=None, labels="labels")
    segment = opened(tmp_path, Net(labels="labels"), output=output, classes=("red", "green"))
    with pytest.raises(BundleError, match="2"):
        segment(bands(BLUE, height=8, width=8))


def test_a_stop_ends_a_net_that_would_run_forever(tmp_path: Path) -> None:
    segment, turn = opened(tmp_path, Net(turns=ENDLESS)), Turn()
    timer = Timer(0.05, turn.stop.set)
    timer.start()
    with pytest.raises(DeadlineExceeded):
        segment(noise(8, 8), turn)
    timer.join()


def test_a_stop_that_was_set_before_lets_no_net_run(tmp_path: Path) -> None:
    segment, turn = opened(tmp_path, Net(turns=ENDLESS)), Turn()
    turn.stop.set()
    assert turn.stop.is_set
    with pytest.raises(DeadlineExceeded):
        segment(noise(8, 8), turn)


def test_a_stopped_run_does_not_touch_the_next(tmp_path: Path) -> None:
    segment, turn = opened(tmp_path, Net()), Turn()
    turn.stop.set()
    with pytest.raises(DeadlineExceeded):
        segment(noise(8, 8), turn)
    assert segment(noise(8, 8), Turn()).mask.shape == (8, 8)


def test_several_threads_may_ask_at_once_and_no_picture_is_changed(tmp_path: Path) -> None:
    segment = opened(tmp_path, Net(), InputSpec(fit="native", multiple_of=16))
    pictures = [noise(20 + index, 50 - index) for index in range(8)]
    before = [picture.copy() for picture in pictures]
    with ThreadPoolExecutor(4) as threads:
        masks = [found.mask for found in threads.map(segment, pictures)]
    for picture, copy, mask in zip(pictures, before, masks, strict=True):
        np.testing.assert_array_equal(picture, copy)
        np.testing.assert_array_equal(mask, picture.argmax(axis=2))


def test_beside_other_work_the_net_for_one_core_answers_and_alone_the_other(tmp_path: Path) -> None:
    manifest = read_manifest(write_bundle(tmp_path, nets=Net()))
    asked: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self, tensor: Tensor, stop: Stop | None = None) -> Answer:
            asked.append(self.name)
            return Answer(np.zeros((3, 8, 8), np.float32))

    segment, pool = Segmenter(manifest, Named("all"), Named("one")), CorePool(2)
    with pool.inside():
        segment(noise(8, 8), Turn(pool=pool))
        with pool.inside():
            segment(noise(8, 8), Turn(pool=pool))
    segment(noise(8, 8))
    assert asked == ["all", "one", "all"]


def test_confidence_is_left_out_where_nobody_asks_for_it(tmp_path: Path) -> None:
    segment = opened(tmp_path, Net())
    assert segment(noise(8, 8), confidence=False).confidence is None
    assert segment(noise(8, 8)).confidence is not None


@pytest.mark.parametrize("fit", ["native", "tile"])
def test_the_tally_says_how_much_of_the_mask_each_class_takes_and_where(
    tmp_path: Path, fit: Literal["native", "tile"]
) -> None:
    side = None if fit == "native" else 16
    spec = InputSpec(fit=fit, height=side, width=side, overlap=4)
    found = opened(tmp_path, Net(), spec)(bands(RED, BLUE, height=40, width=30))
    assert_tallied(found)


def test_class_ids_from_the_graph_are_tallied_too(tmp_path: Path) -> None:
    segment = opened(tmp_path, Net(labels="labels"), output=OutputSpec(logits=None, labels="labels"))
    assert_tallied(segment(bands(RED, BLUE, height=8, width=12)))


def assert_tallied(found: Segmentation) -> None:
    assert found.tally.pixels.tolist() == np.bincount(found.mask.ravel(), minlength=256).tolist()
    for class_id in np.unique(found.mask):
        rows, columns = np.nonzero(found.mask == class_id)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert found.tally.boxes[class_id].tolist() == box
