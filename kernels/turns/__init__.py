"""Compiled turns of an agent: what is frequent between nodes, from board and sockets to board and sockets, in one loop.

`nbps.core` is the specification. What is here are the same rules for the frequent events, on arrays instead of objects;
`nbps.agent.turns` brings a node's state into the arrays and back. Two things keep both equal:

- A rule first looks whether the event is a *common* one, of which it knows everything that will happen. If it is not,
  nothing has been changed, and the core takes the event.
- `tests/agent/test_agent_turns.py` has the same happen to both, and compares frames, state and board after each event.

=========  =============================================================================================================
`state`    the arrays, and what their words mean
`rules`    `nbps.core`: a clock of the workers, frames without rows, what is sent then
`frames`   `nbps.transport.carriers.header` and `nbps.transport.wire`: frames without rows, written and read
`loop`     `nbps.agent.process`: look at the board and the sockets, spin, doze
=========  =============================================================================================================

Common are clocks of ESSP in which no row of the node was changed, and what other nodes say of such clocks. All else is
rare here: rows, requests, checkpoints, the end of a run, whatever is wrong, lost, repeated with something else, or too
much for a link.
"""
