"""Components that put models on a cluster and take them off."""
