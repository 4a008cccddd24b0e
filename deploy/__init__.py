"""How it runs elsewhere: deployments. Imported by nothing."""
