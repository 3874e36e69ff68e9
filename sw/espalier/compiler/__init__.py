"""From a PyTorch model to a program: `frontend` makes a `Graph` (ir.py), `backend` lowers it."""
