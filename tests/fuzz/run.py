"""The long form: `python -m tests.fuzz.run --minutes 30 --seed 7 --only registry`."""

import argparse
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz import attacks
from tests.fuzz.target import Target, running


def main() -> int:
    """Attacks with seed after seed until the time is over; 1 when something broke."""
    options = _options()
    until = time.monotonic() + 60 * options.minutes
    seed, broken = options.seed, 0
    names = attacks.names(options.only)
    while names and time.monotonic() < until and not broken:
        # A network of its own for each seed: what it did can be done again.
        with tempfile.TemporaryDirectory(prefix="minga-fuzz-") as folder, running(Path(folder) / "net") as target:
            broken = sum(not _held(name, target, seed, options.amount) for name in names)
        seed += 1
    print(f"{len(names)} attacks, seeds {options.seed} to {seed - 1}: {'BROKEN' if broken else 'nothing broke'}")
    return 1 if broken or not names else 0


def _held(name: str, target: Target, seed: int, amount: int) -> bool:
    started = time.monotonic()
    try:
        attacks.run(name, target, seed, amount)
    except Exception:  # noqa: BLE001 - printed, and the next one is tried
        traceback.print_exc()
        print(f"!!! {name} broke something: python -m tests.fuzz.run --only {name} --seed {seed} --amount {amount}")
        return False
    print(f"{name} {seed}: {time.monotonic() - started:.1f} s", flush=True)
    return True


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--amount", type=int, default=5, help="how much of each attack; 1 is what `make test` does")
    parser.add_argument("--only", nargs="*", default=[], help="attacks whose name has one of these words")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
