"""The operator's screen: a client of the daemon for a terminal of 80x24, keyboard only, readable without colour."""
