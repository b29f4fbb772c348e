"""The paper's tables: cells, plan, runs and report."""
