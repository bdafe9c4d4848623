"""What a training costs: seconds by stage, memory, and how both grow with the data."""
