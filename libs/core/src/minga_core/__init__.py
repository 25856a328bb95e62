"""Domain types of Minga: ids, names, chunks, manifests, records, errors. Imports nothing of ours, does no I/O."""
