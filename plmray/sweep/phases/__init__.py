"""What runs next: search, replicate, adaptive. Optuna lives here, torch and Ray do not."""
