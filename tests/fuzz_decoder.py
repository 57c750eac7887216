"""A campaign guided by coverage, for atheris, which is installed by hand: `python tests/fuzz_decoder.py decoders|sniffers`.

Other arguments are libFuzzer's, such as `-max_total_time=300`.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

atheris: Any = importlib.import_module("atheris")  # no dependency of the tests

with atheris.instrument_imports(include=["picpik_async", "PIL"]):
    from garbage import PICTURES, VALID, try_decoders, try_sniffer


def main() -> None:
    """Throw inputs at the target until libFuzzer has enough, or finds one that is not taken as it should be."""
    target, *options = sys.argv[1:]
    seeds = {"decoders": [json.dumps(answer).encode() for answer in VALID], "sniffers": list(PICTURES)}[target]
    take = {"decoders": try_decoders, "sniffers": try_sniffer}[target]
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *options, corpus], take)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
