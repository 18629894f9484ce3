"""Check the promises of nbps, on its own jobs or on a system of yours with the same worker API.

`History` and `check` say whether what workers added and read keeps the promises (staleness bound, read-my-writes, ...).
"""

from nbps.testing.history import Add, History, Passed, Read, Torn, Violation, check

__all__ = ["Add", "History", "Passed", "Read", "Torn", "Violation", "check"]
