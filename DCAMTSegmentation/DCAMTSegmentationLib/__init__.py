"""What the module DCAMT Segmentation alone needs: its logic, jobs, results, review and panels."""
