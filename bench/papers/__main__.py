"""``python bench/papers``: see `papers.command`."""

import sys
from pathlib import Path

# Run as a folder, Python finds the modules in that folder only; wanted are those beside it, in the workers as well.
sys.path[0] = str(Path(__file__).resolve().parents[1])

try:
    from papers.command import main
except ModuleNotFoundError as error:
    sys.exit(f"python bench/papers needs {error.name}, which is not installed here: pip install '.[bench]'")

if __name__ == "__main__":
    main()
