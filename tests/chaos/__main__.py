"""Chaos trials: kills, full disks, damage, odd names, settings, data, input and requests. It looks for crashes.

    python -m tests.chaos --sections kill disk --trials 20 --seed 1

Each trial is a line of JSON on standard output: section, name, verdict, detail. The verdict is "ok" (the command did
as undisturbed), "refused" (one clear line and status 2) or "FINDING" (anything else), after which the exit status is 1.
A section's trials depend only on the seed; those that kill after a time also on the machine's speed.
"""

import argparse
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from tests.chaos import commands, models, trials
from tests.chaos.requests import requests

SECTIONS: dict[str, trials.Section] = {
    "kill": trials.kill, "disk": trials.disk, "damage": trials.damage, "names": trials.names, "config": trials.config,
    "data": trials.data, "console": trials.console, "requests": requests,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="default: all")
    parser.add_argument("--trials", type=int, default=20, help="in each section (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, help="to work in; its models are used again (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).absolute()
        commands.import_everything()
        if set(options.sections) - {"config", "data"}:  # these need none
            models.make_models(folder / "models")
        counts: Counter[str] = Counter()
        for section in options.sections:
            generator = random.Random(f"{options.seed} {section}")
            work = folder / "work" / section  # a trial may write in its folder only
            work.parent.mkdir(parents=True, exist_ok=True)
            found = SECTIONS[section](folder / "models", work, generator)
            for name, verdict, detail in itertools.islice(found, options.trials):
                counts[verdict] += 1
                row = {"section": section, "name": name, "verdict": verdict, "detail": detail[:1000]}
                print(json.dumps(row | {"at": time.strftime("%H:%M:%S")}), flush=True)
            found.close()
    print(", ".join(f"{verdict}: {count:,}" for verdict, count in sorted(counts.items())), file=sys.stderr)
    return 1 if counts["FINDING"] else 0


if __name__ == "__main__":
    sys.exit(main())
