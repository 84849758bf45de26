"""meshnode carries sealed records from device to device until they reach the office.

`core` decides, `drivers` touch the outside, `office` receives, `app` puts everything together.
"""

from __future__ import annotations

__version__ = "0.1.0"
