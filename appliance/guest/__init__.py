"""The agent: what runs inside the appliance. Standard library and fleetscan's guest-safe parts."""
