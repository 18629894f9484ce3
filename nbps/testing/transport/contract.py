"""The contract of a transport as a test class: subclass it, say which transport and where, and pytest does the rest.

For instance::

    from nbps.testing.transport.contract import TransportContract


    class TestCarrierPigeons(TransportContract):
        def transport(self):
            return PigeonTransport()

        def address(self):
            return "loft-1"

The other methods of `nbps.testing.transport.subject.Subject` are what you may change. The transport must be registered
under its name (`nbps.transport.registry`), since nodes find it by that. Transports and options must pickle, since some
tests start a process that connects back. Everything is driven by the loop that `nbps.transport.interface` asks for.
Needs pytest.
"""

from __future__ import annotations

from nbps.testing.transport.endings import EndContract
from nbps.testing.transport.frames import FrameContract
from nbps.testing.transport.jobs import JobContract
from nbps.testing.transport.meetings import MeetingContract


class TransportContract(FrameContract, EndContract, MeetingContract, JobContract):
    """What `nbps.transport.interface` promises, whatever carries the bytes: frames, ends, meetings, and whole jobs."""
