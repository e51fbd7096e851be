"""What a network is: the designs of the roadmap, and the published family."""
