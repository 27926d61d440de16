"""The nouns of the chain: transactions, blocks, votes, state, and how they are stored."""
