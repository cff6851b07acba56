"""The command line: each command parses its options, calls one documented function and prints."""
