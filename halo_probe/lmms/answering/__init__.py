"""From lmms-eval's requests to recorded answers: order, batches, random numbers."""
