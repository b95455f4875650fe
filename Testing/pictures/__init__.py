"""Draw the pictures of the tutorials from the real panels and Slicer's own views (`make pictures`).

`window` combines a panel with views, `views` draws views with Slicer's displayable managers, and `charts` draws charts
with VTK. `segmentation_tutorial` and `training_tutorial` operate a module as a person does; `wall_tutorial` calls the
engine. The pictures show phantoms, never a patient.
"""
