"""What is asked and what came out: runs, results, statistics, figures and tables."""
