"""Who answers on the node's health ports: kube-proxy's, taken over at Sole, and the agent's own."""
