"""Is a transport one: its contract, and a proxy that makes networks bad."""
