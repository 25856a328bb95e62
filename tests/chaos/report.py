"""The summary at the end of a run."""

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
    took = sorted(settling.took) or [0.0]
    heartbeats = 2 * ledger.liveness.lease_seconds / 3
    soon = sum(one <= heartbeats for one in took)
    most = settling.leaks.most
    lines += [
        f"  quiet       {len(settling.took)} times; the directory was the truth after {took[len(took) // 2]:.1f} s"
        f" (median), {max(took):.1f} s (most); {soon} times within two heartbeats ({heartbeats:.1f} s)",
        f"  absence     a peer that lives was out of the answers for {ledger.liveness.longest_absence:.1f} s at most",
        f"  at rest     at most {most.sockets} sockets, {most.open_files} open files, {most.threads} threads,"
        f" {most.tasks} tasks, {most.memory_mib} MiB in one process",
        f"  promises    {'all kept' if not ledger.violations else f'{len(ledger.violations)} BROKEN'}",
    ]
    lines += [f"    !!! {violation}" for violation in ledger.violations]
    return "\n".join(lines)
