"""Where a process stands among the nodes of a job: given, or found in the environment of a launcher."""
