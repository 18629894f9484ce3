"""What tests share: tables and tasks of jobs, programs that are nodes or drivers, test beds, faults to plant.

Child processes find this package too (`conftest.py` sees to it); what workers and nodes import imports no pytest.
"""

from pathlib import Path

SCRIPTS = Path(__file__).parent  # of the files here that tests run as scripts
