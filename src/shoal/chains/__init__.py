"""Chains: the layers of a trained net in another order, some left out, some run again; and a search for such a chain.

chain          a Net that runs these layers in this order, with the weights of the net given
Chains         many chains on one input, their common beginnings run once
search_chain   the best chain for one input, by tree search
random_chain   the same by blind draws: what to compare with
tally          what was found for many inputs, in sum
"""

from shoal.chains.running import Chain, Chains, base_chain, chain
from shoal.chains.searching import Found, Reward, changed, random_chain, search_chain, ucb
from shoal.chains.tallying import Tally, tally

__all__ = [
    "Chain",
    "Chains",
    "Found",
    "Reward",
    "Tally",
    "base_chain",
    "chain",
    "changed",
    "random_chain",
    "search_chain",
    "tally",
    "ucb",
]
