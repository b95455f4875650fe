"""Provide Slicer's module `SampleData` without network: register samples, and load them from local files."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import slicer


@dataclass
class Source:
    category: str
    sampleName: str
    uris: Any
    fileNames: Any
    nodeNames: Any
    loadFileTypes: Any
    thumbnailFileName: str | None
    checksums: Any
    customDownloader: Any


sources: dict[str, Source] = {}


class SampleDataLogic:
    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileType: Any = None,
        loadFiles: Any = None,
        loadFileProperties: Any = None,
        checksums: Any = None,
        loadFileTypes: Any = None,
    ) -> None:
        """Register a sample; raise ValueError if it has no name, or neither an address nor a downloader."""
        if not sampleName or (uris is None and customDownloader is None):
            raise ValueError("a sample needs a sampleName, and uris or a customDownloader")
        sources[sampleName] = Source(
            category,
            sampleName,
            uris,
            fileNames,
            nodeNames,
            loadFileTypes if loadFileTypes is not None else loadFileType,
            thumbnailFileName,
            checksums,
            customDownloader,
        )

    def downloadSample(self, sampleName: str) -> Any:
        """Load a sample with its own downloader or from a local file.

        Raises KeyError if the sample is not registered, RuntimeError if its address is not a local file.
        """
        source = sources[sampleName]
        if source.customDownloader is not None:
            return source.customDownloader(source)
        uri = source.uris if isinstance(source.uris, str) else source.uris[0]
        name = source.nodeNames if isinstance(source.nodeNames, str) else (source.nodeNames or [sampleName])[0]
        parts = urlparse(uri)
        if parts.scheme != "file":
            raise RuntimeError(f"the harness fetches nothing from the network: {uri}")
        return slicer.util.loadVolume(url2pathname(parts.path), {"name": name})


def make_module() -> types.ModuleType:
    made = types.ModuleType("SampleData")
    made.SampleDataLogic = SampleDataLogic  # type: ignore[attr-defined]
    made.downloadSample = lambda name: SampleDataLogic().downloadSample(name)  # type: ignore[attr-defined]
    return made
