"""Measure late gadolinium enhancement on the atrium's surface: surface, samples along normals, openings, burden."""
