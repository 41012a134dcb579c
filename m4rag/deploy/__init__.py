"""Put models on a Kubernetes cluster: apply, wait, explain, prove, remove."""
