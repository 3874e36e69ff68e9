"""From a PyTorch model to a program: `frontend.compile` imports the model into a `Graph` (ir.py), `backend` lowers it."""
