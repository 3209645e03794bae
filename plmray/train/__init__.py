"""How one trial trains. Knows torch and DeepSpeed, never Ray or MLflow."""
