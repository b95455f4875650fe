"""Pictures and reports of scans and runs: HTML files that need no network and name no patient."""
