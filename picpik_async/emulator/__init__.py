"""A PICPIK of your own, on this machine: for trying out without keys, and for tests.

```python
async with Emulator() as emulator, emulator.session() as picpik:
    result = await picpik.run(ModifyMaskedPixels.inpaint("room.jpg", mask="sofa.png"))
```

It speaks the documented protocol, checks signatures and ranges, queues tasks, charges credits and really fills masks
from their surroundings. It cannot read prompts. On demand it fails like a real service on a bad day: see `Fault`.
Needs the `emulator` extra.
"""

from __future__ import annotations

from picpik_async.emulator._faults import Fault
from picpik_async.emulator._server import Emulator
from picpik_async.emulator._tasks import ImageRecord, LedgerEntry

__all__ = ["Emulator", "Fault", "ImageRecord", "LedgerEntry"]
