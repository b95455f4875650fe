"""Draw pictures and write reports of scans and runs: self-contained HTML files that name no patient by default."""
