"""Draw pictures, write HTML reports of scans and runs, and build DICOM measurement reports.

An HTML report is self-contained. Without the argument `identity`, an HTML report does not name the patient. The names
of classes, tasks and models are shown unchanged, even if they contain the patient's name.
"""
