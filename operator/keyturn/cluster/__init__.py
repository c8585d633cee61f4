"""Everything that is said to Kubernetes."""
