"""What the suites of deploy/tests share."""
