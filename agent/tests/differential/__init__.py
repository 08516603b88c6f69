"""Random clusters, given to the real kube-proxy and to our programs: the same packets must end the same way."""
