"""What a job is made of on one box: segments, the board, worker processes and their supervision."""
