"""Provide `slicer.parameterNodeWrapper`: typed access to a scripted module node, in Slicer's storage format."""

from .wrapper import SlicerParameterNamePropertyName, parameterNodeWrapper

__all__ = ["SlicerParameterNamePropertyName", "parameterNodeWrapper"]
