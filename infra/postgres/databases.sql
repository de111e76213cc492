-- Beside `prefect`, which the image makes: MLflow's runs and registry, and its users.
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
