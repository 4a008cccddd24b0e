"""Training, calibration and fine-tuning of each model; `configs` holds their settings."""
