"""The agent: what runs inside the appliance. It stands on the ground alone."""
