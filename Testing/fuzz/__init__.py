"""Test the engine with damaged scans."""
