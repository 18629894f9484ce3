"""What runs a job on one box: the board, worker processes, their supervisor, and the fork server it comes from."""
