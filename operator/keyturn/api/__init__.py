"""The words that every other folder shares: resource models, conditions, provider semantics, CRD generation."""
