"""How bytes travel between nodes. A job on one box needs no transport: its workers share memory."""
