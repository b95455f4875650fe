"""A run's report: one HTML file that opens without a network and says nothing of who the patients were."""
