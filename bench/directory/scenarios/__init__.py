"""What is measured of the directory: one module for each kind of load."""
