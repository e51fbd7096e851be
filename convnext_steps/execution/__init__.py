"""How runs get done: in notebooks, by workers, on clusters."""
