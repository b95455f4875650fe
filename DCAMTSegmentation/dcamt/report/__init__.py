"""Draw pictures, write HTML reports of scans and runs, and build DICOM measurement reports.

An HTML report is self-contained. Without the argument `identity`, a report names no patient, unless the name of a
class, task or model contains the patient's name.
"""
