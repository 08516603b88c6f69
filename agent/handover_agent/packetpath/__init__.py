"""The packet path as it stands on a node: programs on its devices, and what nftables does for them."""
