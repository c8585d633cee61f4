"""The kubelet stand-in: shows the API what a kubelet would, without running any container."""
