"""Steps of a worker process beside its tasks: renewing leases and repairing lost tasks."""
