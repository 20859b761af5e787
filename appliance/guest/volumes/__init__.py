"""One module for each kind of volume that the agent opens."""
