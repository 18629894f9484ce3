"""``python bench/papers``: see `papers.command`."""

import sys
from pathlib import Path

# Run as a folder, Python finds the modules in that folder only; wanted are those beside it, in the workers as well.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from papers.command import main  # noqa: E402  the search path comes before the imports that need it

if __name__ == "__main__":
    main()
