"""Connected UDP sockets whose backend has gone away: found wherever they are on this node, and told."""
