"""Write triangle meshes as STL, OBJ, PLY and VTP files in LPS mm."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..geometry import RAS_TO_LPS
from .atomic import atomic_path

SURFACE_OUTPUTS = (".stl", ".obj", ".ply", ".vtp")
SPACE = "SPACE=LPS"
"""Slicer reads the coordinates of a mesh file with this mark as LPS mm."""


def write_mesh(
    points: np.ndarray,
    triangles: np.ndarray,
    path: str | Path,
    point_data: Mapping[str, np.ndarray] | None = None,
    remarks: Mapping[str, str] | None = None,
) -> None:
    """Write a mesh to a file, completely or not at all.

    Args:
        points: (N, 3) RAS mm, written as LPS mm.
        triangles: (M, 3) indices of points, anticlockwise seen from outside.
        path: its ending, one of `SURFACE_OUTPUTS`, decides the format.
        point_data: arrays (N,) by name; only VTP files store them.
        remarks: texts about the mesh by name; only VTP files store them.

    Raises:
        InputError: the ending is unknown.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    kind = surface_ending(path)
    lps = np.asarray(points, np.float64) * np.diag(RAS_TO_LPS)[:3]
    with atomic_path(path) as temporary:
        if kind == ".stl":
            temporary.write_bytes(_stl(lps, triangles))
        elif kind == ".obj":
            temporary.write_text(_obj(lps, triangles), encoding="ascii")
        elif kind == ".ply":
            temporary.write_bytes(_ply(lps, triangles))
        else:
            _write_vtp(lps, triangles, temporary, point_data or {}, remarks or {})


def surface_ending(path: Path) -> str:
    """Return the ending of a surface file, one of `SURFACE_OUTPUTS`. Raises InputError for any other ending."""
    kind = path.suffix.lower()
    if kind not in SURFACE_OUTPUTS:
        raise InputError(
            "does not have the ending of a surface",
            path=path,
            remedy=f"Use {', '.join(SURFACE_OUTPUTS)}.",
        )
    return kind


def _stl(points: np.ndarray, triangles: np.ndarray) -> bytes:
    corners = points[triangles].astype("<f4")
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    rows = np.zeros(len(triangles), np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")]))
    rows["normal"] = normals / np.where(lengths > 0, lengths, 1.0)
    rows["corners"] = corners
    return f"DCAMT. {SPACE}".encode("ascii").ljust(80) + np.uint32(len(triangles)).tobytes() + rows.tobytes()


def _obj(points: np.ndarray, triangles: np.ndarray) -> str:
    lines = [f"# DCAMT. {SPACE}"]
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in points.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (triangles + 1).tolist()]
    return "\n".join(lines) + "\n"


def _ply(points: np.ndarray, triangles: np.ndarray) -> bytes:
    header = (
        f"ply\nformat binary_little_endian 1.0\ncomment DCAMT\ncomment {SPACE}\nelement vertex {len(points)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    faces = np.zeros(len(triangles), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    faces["count"] = 3
    faces["corners"] = triangles
    return header.encode("ascii") + points.astype("<f4").tobytes() + faces.tobytes()


def _write_vtp(
    points: np.ndarray,
    triangles: np.ndarray,
    path: Path,
    point_data: Mapping[str, np.ndarray],
    remarks: Mapping[str, str],
) -> None:
    # Only VTP needs vtk.
    from vtkmodules.util import numpy_support
    from vtkmodules.vtkCommonCore import vtkPoints, vtkStringArray
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
    from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter

    arrays: Any = numpy_support  # untyped in vtk
    mesh: Any = vtkPolyData()
    places: Any = vtkPoints()
    places.SetData(arrays.numpy_to_vtk(points.astype(np.float32), deep=True))
    mesh.SetPoints(places)
    cells: Any = vtkCellArray()
    cells.SetData(3, arrays.numpy_to_vtkIdTypeArray(np.ascontiguousarray(triangles, np.int64).ravel(), deep=True))
    mesh.SetPolys(cells)
    for name, values in point_data.items():
        array = arrays.numpy_to_vtk(np.ascontiguousarray(values), deep=True)
        array.SetName(name)
        mesh.GetPointData().AddArray(array)
    for name, text in {"SPACE": SPACE.removeprefix("SPACE="), **remarks}.items():
        remark: Any = vtkStringArray()
        remark.SetName(name)
        remark.InsertNextValue(text)
        mesh.GetFieldData().AddArray(remark)
    writer: Any = vtkXMLPolyDataWriter()
    # Python writes the file, because VTK cannot open a path that is not UTF-8.
    writer.WriteToOutputStringOn()
    writer.SetInputData(mesh)
    if not writer.Write():
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
    first_line, _, rest = writer.GetOutputString().partition("\n")
    path.write_bytes(f"{first_line}\n<!-- DCAMT -->\n{rest}".encode())
