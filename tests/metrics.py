"""Prometheus's text in, its figures out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


@dataclass(frozen=True)
class Metrics:
    """What a server had measured at one moment."""

    samples: tuple[Sample, ...]

    @classmethod
    def read(cls, text: str) -> Metrics:
        """From the text; it must be well formed."""
        return cls(tuple(sample for family in text_string_to_metric_families(text) for sample in family.samples))

    @classmethod
    def of(cls, url: str) -> Metrics:
        """Those of a running server."""
        answer = httpx.get(f"{url}/metrics", timeout=30)
        assert answer.status_code == 200, answer.text
        return cls.read(answer.text)

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of all series of that name which have these labels among theirs."""
        return sum(sample.value for sample in self.matching(name, labels))

    def matching(self, name: str, labels: Mapping[str, str]) -> list[Sample]:
        """These series."""
        return [sample for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()]

    def values(self, name: str, label: str) -> set[str]:
        """The values that a label has in the series of that name."""
        return {sample.labels[label] for sample in self.matching(name, {})}
