"""The protocol without I/O: what workers and nodes do, as plain Python that anybody can drive.

Nothing in here opens a socket, starts a thread, reads a clock or draws a random number; time is an argument and the
standard library is enough. The runtime carries out what these objects ask for in shared memory and over a transport,
the simulator (`nbps.sim`) carries it out in virtual time, and tests in any order they like.

==============  ====================================================================================================
`worker`        one worker: commit, publish, wait at the gate, refresh; one box needs nothing else
`runs`          one machine among several, from one run to the next; each run has a
`node`          of its own: events in, actions out; it has a link to each other node and
`replica`       for each other node its copy of the rows owned there,
`shard`         for the rows that it owns itself: whose updates have arrived, and which nodes must be told.
`rounds`        VAP: what was sent and not seen by everybody, what came and was not taken in
`links`         all links of a node: what it says goes out here
`link`          exactly once and in order, over connections that break, lose, repeat and reorder
`watch`         what is read on the board of clocks, as events
`messages`      what nodes say to each other, what drivers tell a node, and what it asks them to do
`memory`        what the driver lends to it: the node's rows and its board of clocks
`settings`      what a node must know, and its limits
`terms`         the consistency model, as the protocol sees it
`rules`         the inequalities of the papers, each in one place
==============  ====================================================================================================

Words are those of the first paper (Ho et al., NIPS 2013); a *clock* counts completed units of work, and *visible clock*
v means: every update of every worker from clocks < v can be read.
"""
