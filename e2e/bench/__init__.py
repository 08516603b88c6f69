"""What a connection costs: through kube-proxy, through our datapath, and to a pod without any proxy, in one run."""
