"""What a run tells at its end."""

from argparse import Namespace
from collections import defaultdict

from tests.chaos.ledger import Ledger
from tests.chaos.watching import Settling


def summary(ledger: Ledger, settling: Settling, options: Namespace, seconds: float) -> str:
    """Faults, operations and promises, for people."""
    faults = ", ".join(f"{kind} {count}" for kind, count in sorted(ledger.faults.items()))
    lines = [
        "",
        f"chaos: seed {options.seed}, {options.peers} peers, {seconds:.0f} s",
        f"  faults      {sum(ledger.faults.values())}: {faults}",
    ]
    by_operation: dict[str, dict[str, int]] = defaultdict(dict)
    for (operation, how), count in sorted(ledger.outcomes.items(), key=lambda item: -item[1]):
        by_operation[operation][how] = count
    lines += [
        f"  {operation:<11} {sum(ends.values())}: {', '.join(f'{how} {count}' for how, count in ends.items())}"
        for operation, ends in sorted(by_operation.items())
    ]
    took = settling.took or [0.0]
    lines += [
        f"  quiet       {len(settling.took)} times; the directory was the truth after {max(took):.1f} s at most",
        f"  open files  {settling.most_descriptors} at most in one process",
        f"  promises    {'all kept' if not ledger.violations else f'{len(ledger.violations)} BROKEN'}",
    ]
    lines += [f"    !!! {violation}" for violation in ledger.violations]
    return "\n".join(lines)
