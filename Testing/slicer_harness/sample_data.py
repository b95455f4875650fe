"""Provide Slicer's module `SampleData` without network: register samples, and load them from local files."""

from __future__ import annotations

import types
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import slicer

_samples: dict[str, tuple[str, str]] = {}
"""Name of a sample -> the address of its file, and the name of its node."""


class SampleDataLogic:
    @staticmethod
    def registerCustomSampleDataSource(
        *,
        category: str,
        sampleName: str,
        uris: str,
        fileNames: str,
        nodeNames: str,
        checksums: str,
        thumbnailFileName: str,
    ) -> None:
        _samples[sampleName] = uris, nodeNames

    def downloadSample(self, sampleName: str) -> Any:
        """Load a sample from a local file.

        Raises KeyError if the sample is not registered, RuntimeError if its address is not a local file.
        """
        uri, name = _samples[sampleName]
        parts = urlparse(uri)
        if parts.scheme != "file":
            raise RuntimeError(f"the harness fetches nothing from the network: {uri}")
        return slicer.util.loadVolume(url2pathname(parts.path), {"name": name})


def make_module() -> types.ModuleType:
    made = types.ModuleType("SampleData")
    made.SampleDataLogic = SampleDataLogic  # type: ignore[attr-defined]
    made.downloadSample = lambda name: SampleDataLogic().downloadSample(name)  # type: ignore[attr-defined]
    return made
