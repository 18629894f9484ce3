"""The agent: the process of a node that exchanges rows and clocks with the agents of other nodes.

It drives `nbps.core.node.Node`: connections of `nbps.transport` bring what other nodes say, the board of clocks says
what the workers here have done, and the rows are those that the workers read and add to. One thread, one poll loop, no
lock.
"""

from __future__ import annotations
