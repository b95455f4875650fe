"""Draw pictures, write HTML reports of scans and runs, and build DICOM measurement reports.

An HTML report is self-contained. It names a patient only if the caller passes `identity`, or if the name of a class,
task or model does.
"""
