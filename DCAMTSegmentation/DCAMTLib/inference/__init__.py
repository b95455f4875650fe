"""From a scan to its segmentation: prediction window by window, and what is done to the labels afterwards."""
