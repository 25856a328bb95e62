"""Files of other places: fetched once for all machines, then files like any other, under `origins/`."""
