"""Tables: what they are, where their rows lie and who owns them; how a worker and a driver see them."""
