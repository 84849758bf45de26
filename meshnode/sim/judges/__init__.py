"""Judges: they stand outside the nodes, see every effect and every commit, and know what really happened.

Each holds the fleet to one promise, at every step and at the moment when it would be broken, so that the first broken
promise of a run is near its cause. They are incremental: what they ask of a step does not depend on how long the run
has been going on. What can only be demanded once everything is healed is in `liveness`.

    judge       what a judge is             bench       all of them, watching one run
    custody     a device and its officer    carriers    what is carried for others
    office      the sink and the receipts   membership  how members treat each other
    bounds      disk, memory and air time
"""

from __future__ import annotations

from meshnode.sim.judges.bench import Bench

__all__ = ["Bench"]
