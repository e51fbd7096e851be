"""How a network learns: recipes, data, and the Trainer."""
