"""What runs in a worker process beside its tasks: leases and repairs."""
