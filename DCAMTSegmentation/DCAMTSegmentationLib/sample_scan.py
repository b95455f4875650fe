"""The sample scan that DCAMT brings (synthetic: no patient), in Slicer's Sample Data module."""

from __future__ import annotations

from pathlib import Path

NAME = "LGEHeartPhantom"
CHECKSUM = "SHA256:e8e2e4d1939a570de575045b0b9aab2faa510268bc73e7bcc902f7794e041200"


def sample_path() -> Path:
    """Return the file's path: beside the module in an installed extension, one folder up in the source tree."""
    home = Path(__file__).resolve().parents[1]
    near = home / "Resources" / "SampleData" / f"{NAME}.nrrd"
    return near if near.exists() else home.parent / "Resources" / "SampleData" / f"{NAME}.nrrd"


def register_sample_scan() -> None:
    """Register the scan; call it once Slicer has started, for Sample Data is a module itself."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="DCAMT",
        sampleName=NAME,
        uris=sample_path().as_uri(),
        fileNames=f"{NAME}.nrrd",
        nodeNames=NAME,
        checksums=CHECKSUM,
        thumbnailFileName=str(Path(__file__).resolve().parents[1] / "Resources" / "Icons" / "DCAMTSegmentation.png"),
    )
