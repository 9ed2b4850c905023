"""How a flow reads the stages from DVC, runs each as a child process on a slot, and records what became of it."""
