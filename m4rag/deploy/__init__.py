"""Put models and endpoints on a cluster: what is applied there, what is waited for, what is removed."""
