"""The library of the module DCAMT Segmentation: its logic, jobs, results, review and panels."""
