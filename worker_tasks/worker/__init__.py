"""The background work of a worker process: renewing leases and repairing lost tasks."""
