"""How a trajectory comes to be: plan, run, collect, plot."""
