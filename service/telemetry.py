"""What happens in the service in, Prometheus's text out; right with one process as with several that share a folder."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from time import monotonic, process_time
from typing import Concatenate, Literal, ParamSpec

import onnxruntime
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.exposition import exposition, share
from service.visit import Visit, Work

logger = logging.getLogger(__name__)

P = ParamSpec("P")

Mode = Literal["livesum", "livemax"]
"""What becomes of a gauge's values in several live processes."""

PREFIX = "segserve"

STAGE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
MEGAPIXEL_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 12, 24, 50, 100)

METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})

OTHER = "other"
"""The label of what is outside a known and small set: methods and names that clients make up must not become series."""

PROCESS_SECONDS = 1.0
"""How often a process looks at its own memory, at most."""


def _harmless(
    observe: Callable[Concatenate[Telemetry, P], None],
) -> Callable[Concatenate[Telemetry, P], None]:
    """What is measured must not fail because it is measured."""

    @wraps(observe)
    def guarded(self: Telemetry, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            observe(self, *args, **kwargs)
        except Exception:
            self.complain()

    return guarded


class Telemetry:
    """The instruments of one application, in a registry of their own; may be used from any thread."""

    def __init__(self, cores: int = 1) -> None:
        """`cores`: how many the process works with."""
        share()
        self._registry = CollectorRegistry()
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._lock = Lock()
        self._complained = False
        self._is_draining = False
        self._known: frozenset[str] = frozenset()
        self._shown: frozenset[tuple[str, ...]] = frozenset()
        self._looked, self._cpu_seconds = 0.0, 0.0
        self._of_requests()
        self._of_work()
        self._of_models()
        self._of_the_process(cores)

    def exposition(self) -> bytes:
        """All that was measured, by every process where there are several, as Prometheus reads it."""
        self._look_at_the_process()
        return exposition(self._registry)

    async def scraped(self) -> bytes:
        """The same from a thread of its own, which no other work keeps waiting: of many processes it takes a while."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, self.exposition)

    @_harmless
    def began(self) -> None:
        """A request has come in."""
        self._in_progress.inc()

    @_harmless
    def ended(self, visit: Visit) -> None:
        """A request has been answered, or its client is gone."""
        self._in_progress.dec()
        method = visit.method if visit.method in METHODS else OTHER
        self._requests(method, visit.route, visit.status).inc()
        self._request_seconds(visit.route).observe(visit.seconds or 0.0)
        self._upload_bytes.inc(visit.received)
        if visit.code is not None:
            self._errors(visit.code).inc()
        if visit.work is not None:
            self._worked(visit.work)
        self._look_at_the_process()

    @_harmless
    def streams(self, count: int) -> None:
        """So many streams are open."""
        self._streams.set(count)

    @_harmless
    def frame(self, received: int, work: Work | None = None, code: str | None = None) -> None:
        """A frame of a stream, of so many bytes, has been answered: with the work that was done for it, or with a
        problem of that code; else it was dropped."""
        self._frames("answered" if work else "refused" if code else "dropped").inc()
        self._upload_bytes.inc(received)
        if code is not None:
            self._errors(code).inc()
        if work is not None:
            self._worked(work)

    @_harmless
    def admitted(self, milliseconds: float) -> None:
        """Work was let in that is estimated to take so long."""
        self._admitted.inc()
        self._admitted_seconds.inc(milliseconds / 1e3)

    @_harmless
    def shed(self, reason: str) -> None:
        """A request was turned away."""
        self._shed(reason).inc()

    @_harmless
    def queued(self, milliseconds: float) -> None:
        """All work that was let in and has not ended is estimated to take so long."""
        self._queued.set(milliseconds / 1e3)

    @_harmless
    def models(self, models: Sequence[tuple[str, int, str, bool]]) -> None:
        """These serve, and no others: name, version, variant, and whether it is the default one."""
        serving = frozenset(
            (name, str(number), variant, str(default).lower()) for name, number, variant, default in models
        )
        names = frozenset(name for name, *_ in serving)
        with self._lock:
            for labels in self._shown | serving:
                self._model_info(*labels).set(labels in serving)
            for name in self._known | names:
                self._model_ready(name).set(name in names)
            self._shown |= serving
            self._known |= names

    @_harmless
    def ready(self, ready: bool) -> None:
        """Whether the models are ready; a process that drains is not, whatever they are."""
        with self._lock:
            self._ready.set(ready and not self._is_draining)

    @_harmless
    def draining(self) -> None:
        """The process takes no more work."""
        with self._lock:
            self._is_draining = True
            self._ready.set(0)
            self._draining.set(1)

    def complain(self) -> None:
        """Log what keeps this from measuring, once."""
        if not self._complained:
            self._complained = True
            logger.exception("a metric could not be written; requests are answered all the same")

    def _worked(self, work: Work) -> None:
        model = work.model if work.model in self._known else OTHER
        for step, milliseconds in work.steps.items():
            self._stage_seconds(step, model).observe(milliseconds / 1e3)
        for picture in work.pictures:
            self._pictures(model).inc()
            self._megapixels.observe(picture.width * picture.height / 1e6)
            for name, pixels in picture.pixels.items():
                self._class_pixels(model, name).inc(pixels)
        if work.stored is True:
            self._stored.inc()
        elif work.stored is not None:
            self._not_stored(work.stored).inc()

    def _look_at_the_process(self) -> None:
        """A process looks only at itself, so it does so now and then, and not when it is asked: the one that is asked
        is any of several."""
        with self._lock:
            if monotonic() - self._looked < PROCESS_SECONDS:
                return
            self._looked = monotonic()
            used = process_time()
            self._cpu.inc(used - self._cpu_seconds)
            self._cpu_seconds = used
            self._memory.set(_resident_bytes())

    def _of_requests(self) -> None:
        self._requests = self._counters("requests", "Requests that have ended.", "method", "route", "status")
        self._request_seconds = self._histograms(
            "request_seconds", "From a request's head to the end of its answer.", REQUEST_BUCKETS, "route"
        )
        self._in_progress = self._gauge("requests_in_progress", "Requests that are being answered.")
        self._errors = self._counters("errors", "Answers that are a problem, by its code.", "code")
        self._upload_bytes = self._counter("upload_bytes", "Bytes of bodies and frames that were received.")
        self._streams = self._gauge("streams", "Streams that are open.")
        self._frames = self._counters("frames", "Frames of streams, by what became of them.", "outcome")

    def _of_work(self) -> None:
        self._stage_seconds = self._histograms(
            "stage_seconds", "What a stage of the work on a request took.", STAGE_BUCKETS, "stage", "model"
        )
        self._queued = self._gauge("work_queued_seconds", "Estimated work that was let in and has not ended.")
        self._admitted = self._counter("admitted", "Requests whose work was let in.")
        self._admitted_seconds = self._counter("admitted_work_seconds", "Estimated work that was let in.")
        self._shed = self._counters("shed", "Requests that were turned away.", "reason")
        self._pictures = self._counters("pictures", "Pictures that a net has seen.", "model")
        self._megapixels = self._histogram("picture_megapixels", "Sizes of these pictures.", MEGAPIXEL_BUCKETS)
        self._class_pixels = self._counters("mask_class_pixels", "Pixels of masks, by class.", "model", "class")
        self._stored = self._counter("results_stored", "Results that were stored.")
        self._not_stored = self._counters("results_not_stored", "Results that were not stored.", "reason")

    def _of_models(self) -> None:
        self._model_info = self._gauges(
            "model_info", "1: this version serves; 0: it did.", "model", "version", "variant", "default", mode="livemax"
        )
        self._model_ready = self._gauges("model_ready", "Processes in which the model has a usable version.", "model")
        self._ready = self._gauge("ready", "Processes that are ready.")
        self._draining = self._gauge("draining", "Processes that take no more work.")

    def _of_the_process(self, cores: int) -> None:
        self._cpu = self._counter("cpu_seconds", "Processor time of all worker processes.")
        self._memory = self._gauge("memory_bytes", "Resident memory of all worker processes.")
        self._counter("worker_starts", "Worker processes that have begun.").inc()
        self._gauge("cores", "Cores that all worker processes work with.").set(cores)
        build = self._gauges("build_info", "What runs here.", "version", "onnxruntime", "python", mode="livemax")
        build(version("segserve"), onnxruntime.__version__, platform.python_version()).set(1)

    # Of an instrument with labels, what gives the one of those labels: a cache of it is several times as fast.

    def _counters(self, name: str, text: str, *labels: str) -> Callable[..., Counter]:
        return cache(self._counter(name, text, *labels).labels)

    def _histograms(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Callable[..., Histogram]:
        return cache(self._histogram(name, text, buckets, *labels).labels)

    def _gauges(self, name: str, text: str, *labels: str, mode: Mode = "livesum") -> Callable[..., Gauge]:
        return cache(self._gauge(name, text, *labels, mode=mode).labels)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=PREFIX, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace=PREFIX, registry=self._registry, buckets=buckets)

    def _gauge(self, name: str, text: str, *labels: str, mode: Mode = "livesum") -> Gauge:
        return Gauge(name, text, labels, namespace=PREFIX, registry=self._registry, multiprocess_mode=mode)


def _resident_bytes() -> int:
    """The memory of this process; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
