"""What a sweep leaves to use: the seed ensemble of one candidate as a folder, and predictions with it."""
