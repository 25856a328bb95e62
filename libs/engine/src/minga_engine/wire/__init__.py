"""What goes over the wire between peers, to the locator and to the local daemon: both ends of each message."""
