"""What people's programs use: keys, a node's API, receipts."""
