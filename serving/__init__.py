"""What runs beside the model in production."""
