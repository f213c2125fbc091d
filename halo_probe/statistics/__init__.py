"""What is believable of a run's numbers: intervals, tests, corrections for many tests, information in digits."""
