"""The pictures of the README's tutorials, taken from the real panels and from Slicer's own views: `make pictures`.

`window` puts a panel beside views, `views` draws these through Slicer's displayable managers, `charts` through VTK's
charts; `segmentation_tutorial` and `training_tutorial` go through a module as a person does. They show the shipped
sample scan or phantoms like it, never a patient.
"""
