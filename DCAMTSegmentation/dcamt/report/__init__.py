"""Draw pictures, write HTML reports of scans and runs, and build DICOM measurement reports.

An HTML report is self-contained, and by default names no patient, unless the name of a class does.
"""
