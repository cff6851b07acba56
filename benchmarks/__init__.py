"""What training and sampling cost beside what others do for the same result, measured in one process."""
