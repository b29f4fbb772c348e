"""Services for long jobs on shared machines; nothing here knows of poses or animals."""
