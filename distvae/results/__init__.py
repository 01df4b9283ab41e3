"""Results: the ledger (Parquet), MLflow, curves, plots."""
