"""nbps: a stale-synchronous-parallel parameter server in shared memory."""
