"""Hostile input at every port of a running network: no crash, no hang, no answer that says "bug".

One network (`target.py`): store, registry, locator and a peer, each a process of its own, as `minga up` starts them.
Its ports get, as a function of a seed:

- raw bytes (`raw.py`): garbage, cut off and slow HTTP, silent connections;
- messages (`calls.py`) for every method of the contracts: random bytes, good messages (`steps.py`) that were
  damaged, and messages made by their descriptor with hostile values (`messages.py`), in streams of any order;
- requests: what schemathesis makes of the locator's own OpenAPI document (`openapi.py`), and HTTP that is none.

Held to, by `Target.watched`, around each attack:

- every call ends within its deadline, with OK or a status that the contract knows: never UNKNOWN, INTERNAL or a 5xx;
- a well-behaved client at the same ports gets its answers meanwhile;
- the processes are those that were there before, none has logged a traceback, and their descriptors and memory come
  back to what they were;
- the directory has no row that the rules forbid; nothing lies outside of the shared folder, nothing unfinished in it,
  and what is shared is what was put there.

Floods (`test_floods.py`) are the same with good messages: one client takes all it can get, another one is still served.

`make test` runs a short form with fixed seeds. `make fuzz ARGS='--minutes 30 --seed 7'` goes on with seed after seed
and prints the one with which an attack failed; `--only registry` runs those whose name has that word.
"""
