"""What is measured: one module for each kind of load, one class for each row of the table."""
