"""The sweep's mirror in MLflow."""
