"""What carries the bytes: the transports that come with nbps, one connection class each."""
