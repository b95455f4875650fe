"""From a scan to its segmentation: prediction in one pass or in tiles, and what is done to the labels afterwards."""
