"""The locator: finds files and places for uploads, over REST."""
