"""What a process does with a job: prepare, train, report."""
