"""The kinds of volume that the agent knows: a module or folder each, found by being there."""
