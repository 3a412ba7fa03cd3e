"""Calls that wait are joined to one batch; each gets its own answer, and one that leaves takes no other with it."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from weakref import ref

import numpy as np
import pytest
from onnx import TensorProto, helper

from service.batching import Batcher, BatchLimits
from service.errors import BundleError, DeadlineExceeded
from service.graph import Answer, Graph, Tensor
from service.manifest import InputSpec, Manifest, Variant
from service.sharing import Sharing, joined
from service.turn import Stop
from tests.bundles import class_specs

WAIT = BatchLimits(pictures=4, milliseconds=150)


class Net:
    """Answers the first value of each tensor, and notes how many it was asked for at once."""

    def __init__(self, broken: bool = False) -> None:
        self.asked: list[int] = []
        self.broken = broken

    def batch(self, tensors: Sequence[Tensor], stop: Stop | None = None) -> list[Answer]:
        self.asked.append(len(tensors))
        if self.broken:
            raise BundleError("it is broken")
        return [Answer(np.full((1, 1, 1), tensor.flat[0], np.float32)) for tensor in tensors]


class Endless(Net):
    """Runs until it is stopped, as onnxruntime does."""

    def __init__(self) -> None:
        super().__init__()
        self.running, self.ended = threading.Event(), threading.Event()

    def batch(self, tensors: Sequence[Tensor], stop: Stop | None = None) -> list[Answer]:
        assert stop is not None
        self.running.set()
        while not stop.is_set:
            time.sleep(0.005)
        self.ended.set()
        raise DeadlineExceeded("stopped")


def tensor(value: int, side: int = 8) -> Tensor:
    return np.full((1, side, side, 3), value, np.uint8)


def value(answer: Answer) -> float:
    assert answer.scores is not None
    return float(answer.scores[0, 0, 0])


def test_calls_that_wait_are_one_batch_and_each_gets_its_own_answer() -> None:
    net = Net()
    batcher = Batcher(net, WAIT)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda number: value(batcher(tensor(number))), range(4)))
    assert answers == [0, 1, 2, 3]
    assert net.asked == [4]


def test_a_full_batch_waits_for_nobody() -> None:
    batcher = Batcher(Net(), BatchLimits(pictures=2, milliseconds=60_000))
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda number: value(batcher(tensor(number))), range(2))) == [0, 1]


def test_a_call_alone_waits_no_longer_than_it_may() -> None:
    net = Net()
    assert value(Batcher(net, BatchLimits(8, 1))(tensor(7))) == 7
    assert net.asked == [1]


def test_pictures_of_other_sizes_are_another_batch() -> None:
    net = Net()
    batcher = Batcher(net, WAIT)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda side: value(batcher(tensor(side, side))), (8, 16, 8, 16)))
    assert answers == [8, 16, 8, 16]
    assert net.asked == [2, 2]


def test_many_calls_in_a_row_all_get_their_own_answers() -> None:
    net = Net()
    batcher = Batcher(net, BatchLimits(3, 1))
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda number: value(batcher(tensor(number % 256))), range(600)))
    assert answers == [number % 256 for number in range(600)]
    assert sum(net.asked) == 600
    assert max(net.asked) <= 3


def test_a_request_of_many_calls_keeps_none_of_their_answers() -> None:
    batcher, stop = Batcher(Net(), BatchLimits(pictures=1)), Stop()
    scores = [batcher(tensor(number), stop).scores for number in range(3)]
    assert all(array is not None for array in scores)
    kept = [ref(array) for array in scores if array is not None]
    del scores
    gc.collect()
    assert [held() for held in kept] == [None] * 3


def test_every_caller_gets_to_know_what_went_wrong() -> None:
    batcher = Batcher(Net(broken=True), WAIT)

    def ask(number: int) -> str:
        with pytest.raises(BundleError) as error:
            batcher(tensor(number))
        return str(error.value)

    with ThreadPoolExecutor(3) as threads:
        assert set(threads.map(ask, range(3))) == {"it is broken"}


@pytest.mark.parametrize("first", [0, 1])
def test_a_caller_that_leaves_leaves_at_once_and_the_net_ends_when_all_have(first: int) -> None:
    net = Endless()
    batcher, stops = Batcher(net, BatchLimits(2, 60_000)), [Stop(), Stop()]
    with ThreadPoolExecutor(2) as threads:
        calls: list[Future[Answer]] = []
        for stop in stops:
            calls.append(threads.submit(batcher, tensor(1), stop))
            time.sleep(0.05)
        assert net.running.wait(10)
        stops[first].set()
        assert not net.ended.wait(0.1)
        stops[1 - first].set()
        assert net.ended.wait(10)
        for call in calls:
            with pytest.raises(DeadlineExceeded):
                call.result(10)


def test_a_graph_that_only_says_that_it_takes_any_batch_is_asked_one_by_one(tmp_path: Path) -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, [4], [1, 3, 8, 8])  # fails for two pictures
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Reshape", ["planes", "shape"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 8, 8, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 3, 8, 8])
    graph = helper.make_graph(nodes, "stubborn", [image], [logits], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    manifest = Manifest(
        name="stubborn",
        version=1,
        license="Apache-2.0",
        input=InputSpec(height=8, width=8),
        classes=class_specs(["red", "green", "blue"]),
        variants=(Variant(id="fp32", file="model.onnx"),),
    )
    opened = Graph(tmp_path / "model.onnx", manifest, ("cpu",))
    with pytest.raises(Exception, match="Reshape"):
        opened.batch([tensor(1)] * 2)
    assert joined(opened, None, tensor(1), Sharing(cores=2, batch=BatchLimits(8))) is None


def test_a_call_that_was_stopped_before_is_not_answered() -> None:
    stop = Stop()
    stop.set()
    with pytest.raises(DeadlineExceeded):
        Batcher(Net(), BatchLimits(2, 1))(tensor(1), stop)
