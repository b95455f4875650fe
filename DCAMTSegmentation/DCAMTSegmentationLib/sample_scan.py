"""Register DCAMT's synthetic sample scan in Slicer's Sample Data module."""

from __future__ import annotations

from pathlib import Path

NAME = "LGEHeartPhantom"
CHECKSUM = "SHA256:a2dfdb184812ae781efb203c692bfb72663f4dc65f004edd36e9b922306e3609"


def sample_path() -> Path:
    """Return the scan's path, which in the source tree is one folder higher than in an installed extension."""
    home = Path(__file__).resolve().parents[1]
    near = home / "Resources" / "SampleData" / f"{NAME}.nrrd"
    return near if near.exists() else home.parent / "Resources" / "SampleData" / f"{NAME}.nrrd"


def register_sample_scan() -> None:
    """Register the scan; call this after Slicer has started, when the module Sample Data is loaded."""
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
