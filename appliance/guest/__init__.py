"""The agent: what runs inside the appliance. It imports only the ground."""
