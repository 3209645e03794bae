"""Running sweeps: Ray, Optuna and MLflow live here and nowhere else."""
