"""`python -m benchmarks [suite ...]`: run the suites, print a table each, write `results/latest.json`."""

from __future__ import annotations

import os
import sys

# As the server runs it: one thread an operation costs the least processor time; requests run side by side.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    """Run the suites named on the command line, or all."""
    from benchmarks import (
        anchors,
        batch,
        black_box,
        cold_start,
        counterfactual,
        elastic,
        images,
        jobs,
        memory,
        overload,
        reference,
        served,
        sidecar,
        stopping,
        transports,
    )
    from benchmarks.table import report

    suites = {
        "counterfactual": counterfactual.run,
        "elastic": elastic.run,
        "anchor_image": anchors.run,
        "served": served.run,
        "sidecar": sidecar.run,
        "transports": transports.run,
        "overload": overload.run,
        "stopping": stopping.run,
        "jobs": jobs.run,
        "images": images.run,
        "memory": memory.run,
        "black box": black_box.run,
        "cold start": cold_start.run,
        "batch": batch.run,
    }
    wanted = sys.argv[1:] or [*suites]
    if not reference.present() and not {*wanted} <= {"images", "batch"}:
        print(
            "no recorded reference (EXPLAINER_RUNTIME_REFERENCE): only `images` and `batch` can be measured"
        )
        return
    report({name: run for name, run in suites.items() if name in wanted})


if __name__ == "__main__":
    main()
