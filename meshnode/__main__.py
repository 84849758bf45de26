"""`python -m meshnode` is the command `meshnode`."""

from __future__ import annotations

from meshnode.app.cli import main

if __name__ == "__main__":
    main()
