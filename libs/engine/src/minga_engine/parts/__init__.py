"""Contents on disk while they are made: hashing, part files, durable placing."""
