"""Provide `slicer.parameterNodeWrapper`: typed access to a scripted module node."""

from .wrapper import SlicerParameterNamePropertyName, parameterNodeWrapper

__all__ = ["SlicerParameterNamePropertyName", "parameterNodeWrapper"]
