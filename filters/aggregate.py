"""What the two aggregations have in common: reading what is new, doing nothing twice, writing the result at
once.
"""

from __future__ import annotations
