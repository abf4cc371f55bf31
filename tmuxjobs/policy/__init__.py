"""Decides who may run what: what a shell line would run, the rules that judge it, and where they come from."""
