"""Speed and size against named peers, run by `make bench`, never by a timed test."""
